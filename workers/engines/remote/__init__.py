"""The openai family: no model here, but any server that speaks OpenAI's API. What this service promises (queue,
records, streams, keys) holds in front of a remote model too.

Rule of this package: nothing of an upstream response reaches a client or a log unchanged, except the generated text.
"""
