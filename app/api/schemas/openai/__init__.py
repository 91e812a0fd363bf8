"""The request and response bodies of OpenAI's API, as far as a text model can serve it.

Rule of this package: a field of the `openai` library's types is supported, rejected by its name, or listed as ignored
(`unread_names.IGNORED`); an unknown name is rejected.
"""
