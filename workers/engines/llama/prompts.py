"""From a request to a prompt of the llama family."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.errors import UnsupportedParameter
from app.jobs.job import TokenLogprob
from app.jobs.sampling import SamplingParams
from workers.engines.base import Prompt
from workers.engines.llama.adapters import AdapterSet
from workers.engines.llama.samplers import Sampler, is_deterministic
from workers.engines.llama.vocabulary import LlamaVocabulary
from workers.engines.shared.constraint import ConstraintCompiler, tokenizer_of_pieces
from workers.engines.shared.prompts import PromptMaker

DEFAULTS = {"max_tokens": 128, "temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.0, "repeat_penalty": 1.1}
"""Of generate, as the original service had them."""


@dataclass(slots=True)
class SequenceState:
    """What the engine keeps per sequence; `prompt_logprobs` fills up chunk by chunk."""

    sampler: Sampler
    adapters: AdapterSet = ()
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)


class LlamaPromptMaker(PromptMaker):
    _vocabulary: LlamaVocabulary

    def _prompt(self, sampling: SamplingParams, given: Mapping[str, Any], tokens: list[int]) -> Prompt:
        if sampling.extra:
            errors = {f"params.{name}": ["the llama family has no such parameter"] for name in sampling.extra}
            raise UnsupportedParameter(f"the llama family has no {', '.join(sampling.extra)}", errors=errors)
        sampler = Sampler(sampling, self._vocabulary, self._constraint(sampling))
        return Prompt(
            tokens=tokens,
            sampling=sampling,
            state=SequenceState(sampler),
            is_deterministic=is_deterministic(sampling),
        )

    def _first_tokens(self) -> list[int | None]:
        return [self._vocabulary.bos, self._vocabulary.eos]

    def _new_compiler(self) -> ConstraintCompiler:
        vocabulary = self._vocabulary
        pieces = [vocabulary.piece(token) for token in range(vocabulary.size)]
        control_tokens = [token for token, piece in enumerate(pieces) if not piece]
        tokenizer = tokenizer_of_pieces(pieces, control_tokens=control_tokens, end_tokens=vocabulary.end_tokens)
        return ConstraintCompiler(tokenizer, self._context_tokens)
