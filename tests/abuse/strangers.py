"""What one client may learn of another."""

import time
from collections import Counter

from tests.abuse.attacker import Outcomes, Target
from tests.abuse.service import VICTIM_KEY

_STORY = "The code of the safe in the cellar of the old house at the end of the street is "


def prefixes(target: Target) -> Outcomes:
    """Ask for prompts that begin as the other's does, and read how much of them was computed before."""
    deadline = time.monotonic() + target.seconds
    outcomes: Outcomes = Counter()
    secret = f"At {time.time()} in the morning: {_STORY * 4}"
    body = {"prompt": secret, "max_tokens": 4, "temperature": 0}
    with target.client(VICTIM_KEY) as owner, target.client() as stranger:
        owner.post("/v1/completions", json=body)
        while time.monotonic() < deadline:
            outcomes["tokens that the owner's own repetition shares"] = _cached(
                owner.post("/v1/completions", json=body)
            )
            tokens = _cached(stranger.post("/v1/completions", json={**body, "prompt": f"{secret}{time.monotonic()}"}))
            if outcomes["guesses"] == 0:
                outcomes["tokens shared with the owner's prompt"] += tokens
            outcomes["guesses"] += 1
    return outcomes


def _cached(answer: object) -> int:
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])  # type: ignore[attr-defined]
