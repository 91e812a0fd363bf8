"""What `model.generate()` itself makes of a request: its processors and its way of decoding.

`generate()` accepts a decoding method from its caller (`custom_generate`). Ours does not decode; it returns what it is
given.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import GenerationMode
from transformers.generation.utils import GENERATION_MODES_MAPPING

from app.errors import InvalidRequest, UnsupportedParameter
from workers.engines.shared.short_lived_thread import in_short_lived_thread

_OF_ROWS = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)
_ONLY_WITHIN_GENERATE = frozenset({"use_cache", "cache_implementation", "cache_config", "max_cache_len"})
_REASON_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """processors: in transformers' order. config: everything resolved, tensors included."""

    processors: list[Any]
    config: GenerationConfig

    @property
    def mode(self) -> GenerationMode:
        return self.config.get_generation_mode()

    @property
    def end_tokens(self) -> list[int]:
        # private: `generate()` resolves the end tokens of model, config and arguments into nothing else
        tokens = self.config._eos_token_tensor
        return [] if tokens is None else [int(token) for token in tokens.tolist()]


def plan(model: Any, ids: Tensor, arguments: Mapping[str, Any], processors: Sequence[Any]) -> GenerationPlan:
    """Return what `generate()` would run.

    Args:
        ids: `[1, length]`, the prompt.
        processors: of our own; they go where `generate()` puts a caller's.

    Raises:
        InvalidRequest: transformers rejects the arguments; names its reason.
    """
    asked = {name: value for name, value in arguments.items() if name not in _ONLY_WITHIN_GENERATE}
    with rejections_explained():
        planned: GenerationPlan = model.generate(
            ids, custom_generate=_as_plan, logits_processor=list(processors), **asked
        )
    return planned


def runs_solo(plan: GenerationPlan, arguments: Mapping[str, Any]) -> bool:
    """Is this more than a row of a batch can do?"""
    config = plan.config
    guides = config.guidance_scale is not None and config.guidance_scale != 1
    caches = config.use_cache is False or bool(_ONLY_WITHIN_GENERATE & arguments.keys())
    return plan.mode not in _OF_ROWS or guides or caches


def check_mode(plan: GenerationPlan, *, trusts_remote_code: bool) -> None:
    """Raises UnsupportedParameter for decoding modes that transformers fetches from the hub, unless that is trusted."""
    name = plan.mode.value.replace("_", " ")
    if "/" in GENERATION_MODES_MAPPING[plan.mode] and not trusts_remote_code:
        reason = f"transformers runs {name} from code on the hub: set setup_params.trust_remote_code to allow that"
        raise UnsupportedParameter(reason, errors={"params": [reason]})


def try_out(plan: GenerationPlan, ids: Tensor, vocabulary_size: int) -> None:
    """Run the processors once, so that a processor that fails is the request's error and not the batch's.

    Raises:
        InvalidRequest: with transformers' reason.
    """

    def run() -> None:
        with torch.inference_mode():
            scores = torch.zeros((1, vocabulary_size), device=ids.device)
            for processor in plan.processors:
                scores = processor(ids, scores)

    with rejections_explained():
        in_short_lived_thread(run)


@contextmanager
def rejections_explained(unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn transformers' rejection of arguments into InvalidRequest. unless: true if the error is no rejection."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError) as error:
        if unless():
            raise
        reason = re.sub(r"\s+", " ", str(error)).strip()[:_REASON_CHARACTERS]
        raise InvalidRequest(f"transformers rejects these parameters: {reason}", errors={"params": [reason]}) from error


def _as_plan(
    _model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: GenerationConfig,
    **_inputs: Any,
) -> GenerationPlan:
    return GenerationPlan(list(logits_processor), generation_config)
