"""How tenants share the service: what a token weighs, when a waiting job rises, and what a request should cost.

`lua/shares.lua` charges tenants, `lua/order.lua` decides who is next (docs/decisions/0061-fair-shares.md).
"""

import json
from dataclasses import dataclass
from typing import Self

from app.config.jobs import JobsConfig
from app.jobs import keys
from app.jobs.job import JobRequest

CHARACTERS_PER_TOKEN = 4  # of a text whose tokens are not counted yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """As in the configuration: `jobs.aging_seconds`, `jobs.token_weights`."""

    aging_seconds: float = 300.0
    prompt_weight: float = 1.0
    cached_weight: float = 0.0
    completion_weight: float = 2.0

    @classmethod
    def of(cls, config: JobsConfig) -> Self:
        weights = config.token_weights
        return cls(
            aging_seconds=config.aging_seconds,
            prompt_weight=weights.prompt,
            cached_weight=weights.cached,
            completion_weight=weights.completion,
        )

    def order_of(self, model: str) -> str:
        """Return what the scripts read as `order`: prefix of all keys, numbers, model, with spaces between."""
        weights = f"{self.prompt_weight} {self.cached_weight} {self.completion_weight}"
        return f"{keys.PREFIX} {self.aging_seconds} {weights} {model}"


DEFAULT_SHARING = Sharing()


def estimated_prompt_tokens(request: JobRequest) -> int:
    """Return how many tokens the prompt, the conversation or the texts should have. No tokenizer is asked."""
    if request.prompt_tokens is not None:
        return len(request.prompt_tokens)
    ids = sum(len(text) for text in request.texts if not isinstance(text, str))
    characters = len(request.prompt) + sum(len(text) for text in request.texts if isinstance(text, str))
    if request.chat is not None:
        chat = request.chat
        characters += sum(len(str(message.get("content") or "")) for message in chat.messages)
        characters += len(json.dumps(chat.tools)) if chat.tools else 0
    return ids + -(-characters // CHARACTERS_PER_TOKEN)
