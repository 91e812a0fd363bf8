"""The bodies and answers of OpenAI's API, as far as a text model can serve it.

Law of this room: a field of the `openai` package's types is supported, refused by its name, or listed as ignored
(`requests.IGNORED`); an unknown name is rejected.
"""
