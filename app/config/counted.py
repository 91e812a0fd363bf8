"""Numbers with their nouns, in messages."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return `1 job` or `2 jobs`; plural: where it is not the noun and an s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
