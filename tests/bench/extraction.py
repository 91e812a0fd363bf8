"""Prompts whose answers are in them: passages to be repeated word for word."""

import random

from tests.bench.load import Body

QUOTED_TOKENS = 200  # what SmolLM2 makes of one passage takes about 140
_PLACES = ["Varn", "Olsund", "Petrel Bay", "Marlow", "Kettering", "Saint Osyth", "Brae", "Lindholm"]
_CITIES = ["Lisbon", "Bergen", "Cadiz", "Hull", "Genoa", "Riga"]
_PEOPLE = ["Tomas Reed", "Anna Vik", "Elias Brandt", "Ruth Calder", "Jonas Eide", "Clara Moss"]
_PASSAGE = (
    "The harbour of {place} was closed for {days} days after the storm of {year}. The keeper of the light, {keeper}, "
    "wrote in his book that the water stood {feet} feet above the quay. Three ships from {city} lay at anchor until "
    "the wind turned to the north. On the second day the baker gave bread to the sailors, and the school served as a "
    "hospital. The mayor paid {crowns} crowns for the repair of the wall, which took until the next spring. Nobody was "
    "hurt, but {keeper} never went to sea again. His daughter sold the boat in {city} and opened a shop at the market."
)


def passage(rng: random.Random) -> str:
    """Eight sentences of about 135 tokens, with names and numbers of its own."""
    return _PASSAGE.format(
        place=rng.choice(_PLACES),
        days=rng.randrange(2, 20),
        year=rng.randrange(1700, 1900),
        keeper=rng.choice(_PEOPLE),
        feet=rng.randrange(3, 30),
        city=rng.choice(_CITIES),
        crowns=rng.randrange(20, 2000),
    )


def prompts(count: int, rng: random.Random) -> list[str]:
    """Questions in SmolLM2's chat format. It repeats each passage with a few changed words, and ends by itself."""
    questions = (f"Here is a passage:\n\n{passage(rng)}\n\nRepeat the passage word for word." for _ in range(count))
    return [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in questions]


def body(prompt: str) -> Body:
    params = {"max_tokens": QUOTED_TOKENS, "temperature": 0, "repeat_penalty": 1.0}
    return {"prompt": prompt, "params": params, "details": True}
