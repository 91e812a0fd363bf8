"""What OpenAI's API takes and answers, as far as a text model can serve it.

Law of this room: a field of the `openai` package's types is served, or refused by its name, or listed as ignored
(`requests.IGNORED`); a name that nobody knows is refused.
"""
