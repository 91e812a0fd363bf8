"""The openai family: no model here, but any server that speaks OpenAI's API. What this service promises (queue,
records, streams, keys) holds in front of a remote model too.

Law: nothing that the upstream server says reaches a client or a log as it is, but the text of an answer.
"""
