"""From a request to a prompt that can run: checks, tokens, sampler. Called from many threads at once."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.errors import InvalidRequest, UnsupportedParameter
from app.jobs.job import JobRequest, TokenLogprob
from app.jobs.sampling import SamplingParams
from workers.engines.base import Prompt
from workers.engines.llama.samplers import Sampler, is_deterministic
from workers.engines.llama.vocabulary import LlamaVocabulary
from workers.engines.shared.chat_template import ChatTemplate
from workers.engines.shared.constraint import Constraint, ConstraintCompiler, tokenizer_of_pieces
from workers.engines.shared.infill import infill_tokens
from workers.engines.shared.lengths import check_biased_tokens, check_fits, tokens_to_generate

DEFAULTS = {"max_tokens": 128, "temperature": 0.8, "top_p": 0.95, "top_k": 40, "repeat_penalty": 1.1}
"""Of generate, as the original service had them."""


@dataclass(slots=True)
class SequenceState:
    """What the engine keeps per sequence; `prompt_logprobs` fills up chunk by chunk."""

    sampler: Sampler
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)


class LlamaPromptMaker:
    """Args: defaults: laid under each request's `params`. context_tokens: cells of one slot."""

    def __init__(
        self, vocabulary: LlamaVocabulary, template: ChatTemplate, defaults: Mapping[str, Any], context_tokens: int
    ) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._defaults = dict(defaults)
        self._context_tokens = context_tokens
        self._compiler: ConstraintCompiler | None = None
        self._making_compiler = threading.Lock()

    def prepare(self, request: JobRequest) -> Prompt:
        """As `Engine.prepare` promises."""
        sampling = SamplingParams.build(self._defaults, request.params)
        _refuse_extra(sampling)
        check_biased_tokens(sampling.logit_bias, self._vocabulary.size)
        text, tokens = self._read(request, sampling)
        chosen = "max_tokens" in request.params
        most = tokens_to_generate(sampling, len(tokens), self._context_tokens, chosen=chosen)
        sampling = replace(sampling, max_tokens=most)
        sampler = Sampler(sampling, self._vocabulary, self._constraint(sampling))
        echo_text = text if sampling.echo else ""
        return Prompt(
            tokens=tokens,
            sampling=sampling,
            echo_text=echo_text,
            state=SequenceState(sampler),
            is_deterministic=is_deterministic(sampling),
        )

    def _read(self, request: JobRequest, sampling: SamplingParams) -> tuple[str, list[int]]:
        """The prompt as text and as tokens."""
        if request.prompt_tokens is not None:
            tokens = self._vocabulary.checked(request.prompt_tokens, "prompt")
            text = self._vocabulary.detokenize(tokens, special=False) if sampling.echo or sampling.suffix else ""
        else:
            text = request.prompt if request.chat is None else self._template.render(request.chat)
            tokens = self._vocabulary.tokenize(text)
        if sampling.suffix is not None:
            tokens = infill_tokens(self._vocabulary, text, sampling.suffix)
        return text, self._fitting(tokens, "prompt" if request.chat is None else "messages")

    def _fitting(self, tokens: list[int], field: str) -> list[int]:
        if not tokens:
            tokens = [self._first_token()]
        check_fits(len(tokens), self._context_tokens, field)
        return tokens

    def _first_token(self) -> int:
        token = self._vocabulary.bos if self._vocabulary.bos is not None else self._vocabulary.eos
        if token is None:
            raise InvalidRequest("the prompt has no tokens", errors={"prompt": ["write something this model can read"]})
        return token

    def _constraint(self, sampling: SamplingParams) -> Constraint | None:
        if sampling.grammar is None and sampling.json_schema is None:
            return None
        with self._making_compiler:
            if self._compiler is None:  # 0.2 s of a large vocabulary, which services without grammars never pay
                self._compiler = _compiler_of(self._vocabulary)
        return self._compiler.compile(sampling)


def _compiler_of(vocabulary: LlamaVocabulary) -> ConstraintCompiler:
    pieces = [vocabulary.piece(token) for token in range(vocabulary.size)]
    control_tokens = [token for token, piece in enumerate(pieces) if not piece]
    return ConstraintCompiler(
        tokenizer_of_pieces(pieces, control_tokens=control_tokens, end_tokens=vocabulary.end_tokens)
    )


def _refuse_extra(sampling: SamplingParams) -> None:
    if sampling.extra:
        errors = {f"params.{name}": ["the llama family has no such parameter"] for name in sampling.extra}
        raise UnsupportedParameter(f"the llama family has no {', '.join(sampling.extra)}", errors=errors)
