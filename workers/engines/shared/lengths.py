"""How long a prompt may be, how much may follow it, and which tokens there are; the same for every family."""

from collections.abc import Iterable, Sequence

from app.errors import InvalidRequest, PromptTooLong
from app.jobs.sampling import SamplingParams


def check_fits(prompt_tokens: int, context_tokens: int, field: str = "prompt") -> None:
    """Raises PromptTooLong where the prompt leaves no room for one token."""
    if prompt_tokens >= context_tokens:
        detail = (
            f"the prompt has {prompt_tokens} tokens and the context {context_tokens}, completion included: "
            "shorten the prompt or raise model_params.n_ctx"
        )
        raise PromptTooLong(detail, errors={field: [detail]})


def tokens_to_generate(sampling: SamplingParams, prompt_tokens: int, context_tokens: int, *, chosen: bool) -> int:
    """At most; `max_length` bounds prompt and completion together, alone it replaces the default of `max_tokens`.

    Args:
        chosen: the client has set `max_tokens`.

    Raises:
        InvalidRequest: `max_length` leaves no room.
    """
    bounds = [context_tokens - prompt_tokens]
    if sampling.max_length is not None:
        bounds.append(sampling.max_length - prompt_tokens)
        if bounds[-1] <= 0:
            reason = f"the prompt alone has {prompt_tokens} tokens: raise max_length or give max_tokens"
            raise InvalidRequest("max_length leaves no room", errors={"params.max_length": [reason]})
    if sampling.max_length is None or chosen:
        bounds.append(sampling.max_tokens)
    return min(bounds)


def check_biased_tokens(tokens: Iterable[int], vocabulary_size: int) -> None:
    """Raises InvalidRequest where `logit_bias` names a token that is not there."""
    unknown = sorted(token for token in tokens if not 0 <= token < vocabulary_size)
    if unknown:
        reason = f"there is no token {unknown[0]}: ids go from 0 to {vocabulary_size - 1}"
        raise InvalidRequest("logit_bias names an unknown token", errors={"params.logit_bias": [reason]})


def checked_tokens(tokens: Sequence[int], vocabulary_size: int, field: str) -> list[int]:
    """Ids that came from outside. Raises InvalidRequest, naming the field, where there is no such token."""
    unknown = [token for token in tokens if not 0 <= token < vocabulary_size]
    if unknown:
        reason = f"there is no token {unknown[0]}: ids go from 0 to {vocabulary_size - 1}"
        raise InvalidRequest(f"{field} names an unknown token: {reason}", errors={field: [reason]})
    return list(tokens)
