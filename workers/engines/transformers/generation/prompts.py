"""From a request to a prompt that can run: checks, tokens, processors. Called from many threads at once."""

import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import llguidance.hf
import torch
from transformers import (
    EpsilonLogitsWarper,
    LogitNormalization,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
from transformers.generation import GenerationMode

from app.errors import InvalidRequest, UnsupportedParameter
from app.jobs.job import JobRequest
from app.jobs.sampling import SamplingParams
from workers.engines.base import Prompt
from workers.engines.shared.chat_template import ChatTemplate
from workers.engines.shared.constraint import ConstraintCompiler
from workers.engines.shared.infill import infill_tokens
from workers.engines.shared.lengths import check_biased_tokens, check_fits, tokens_to_generate
from workers.engines.transformers.generation.arguments import DEFAULTS, generate_arguments
from workers.engines.transformers.generation.plan import GenerationPlan, check_mode, plan, runs_alone, try_out
from workers.engines.transformers.generation.processors import FollowGrammar, common_processors
from workers.engines.transformers.generation.states import AloneState, RowState
from workers.engines.transformers.loading.model import LoadedModel
from workers.engines.transformers.vocabulary import TransformersVocabulary

_STREAMING = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE, GenerationMode.ASSISTED_GENERATION)
_STEPPING = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)  # one sequence, one token after the other
_SCORES_ALONE = (
    EpsilonLogitsWarper,
    LogitNormalization,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
_SEEDS = 2**32


class TransformersPromptMaker:
    """Args: batched: the model can be a row of a batch. seed: of requests that name none. trusts_remote_code: decoding
    modes may be fetched from the hub.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        vocabulary: TransformersVocabulary,
        template: ChatTemplate,
        context_tokens: int,
        *,
        batched: bool,
        seed: int | None = None,
        trusts_remote_code: bool = False,
    ) -> None:
        self._loaded = loaded
        self._vocabulary = vocabulary
        self._template = template
        self._context_tokens = context_tokens
        self._batched = batched
        self._trusts_remote_code = trusts_remote_code
        self._defaults = DEFAULTS | _model_defaults(loaded.model) | {"seed": seed}
        self._compiler: ConstraintCompiler | None = None
        self._making_compiler = threading.Lock()

    def prepare(self, request: JobRequest) -> Prompt:
        """As `Engine.prepare` promises."""
        sampling = SamplingParams.build(self._defaults, request.params)
        check_biased_tokens(sampling.logit_bias, self._vocabulary.size)
        arguments = generate_arguments(sampling, request.params, self._vocabulary.size)
        text, tokens = self._read(request, sampling)
        chosen = "max_tokens" in request.params
        most = tokens_to_generate(sampling, len(tokens), self._context_tokens, chosen=chosen)
        sampling = replace(sampling, max_tokens=most)
        arguments["max_new_tokens"] = most
        if sampling.min_length:
            arguments["min_new_tokens"] = min(sampling.min_length, most)
        echo_text = text if sampling.echo else ""
        state = self._state(sampling, arguments, tokens)
        return Prompt(
            tokens=tokens,
            sampling=sampling,
            echo_text=echo_text,
            state=state,
            solo=isinstance(state, AloneState),
            is_deterministic=state.is_deterministic,
        )

    def _read(self, request: JobRequest, sampling: SamplingParams) -> tuple[str, list[int]]:
        """The prompt as text and as tokens."""
        if request.prompt_tokens is not None:
            tokens = self._vocabulary.checked(request.prompt_tokens, "prompt")
            text = self._vocabulary.detokenize(tokens, special=False)
        else:
            text = request.prompt if request.chat is None else self._template.render(request.chat)
            tokens = self._vocabulary.tokenize(text)
        if sampling.suffix is not None:
            tokens = infill_tokens(self._vocabulary, text, sampling.suffix)
        tokens = tokens or self._first_token()
        check_fits(len(tokens), self._context_tokens, "prompt" if request.chat is None else "messages")
        return text, tokens

    def _first_token(self) -> list[int]:
        config = self._loaded.model.generation_config
        for token in (config.bos_token_id, self._vocabulary.tokenizer.bos_token_id, config.eos_token_id):
            if isinstance(token, int):
                return [token]
        raise InvalidRequest("the prompt has no tokens", errors={"prompt": ["write something this model can read"]})

    def _state(
        self, sampling: SamplingParams, arguments: dict[str, Any], tokens: Sequence[int]
    ) -> RowState | AloneState:
        device = self._loaded.device
        ids = torch.tensor([tokens], device=device)
        found = plan(self._loaded.model, ids, arguments, [])
        end_tokens = found.end_tokens
        check_mode(found, trusts_remote_code=self._trusts_remote_code)
        grammar = self._grammar(sampling, found, len(tokens))
        is_seeded = sampling.seed is not None and sampling.seed >= 0
        own = [*common_processors(sampling, end_tokens, device), *([grammar] if grammar else [])]
        common: dict[str, Any] = {
            "speller": self._vocabulary.speller(tokens),
            "end_tokens": frozenset() if sampling.ignore_eos and grammar is None else frozenset(end_tokens),
            "grammar": grammar,
            "max_seconds": found.config.max_time,
            "is_deterministic": not found.config.max_time and (is_seeded or not found.config.do_sample),
        }
        if not self._batched or runs_alone(found, arguments):
            return AloneState(
                arguments=arguments,
                processors=own,
                streams=found.mode in _STREAMING and sampling.logprobs is None,
                seed=_seed(sampling.seed),
                **common,
            )
        if sampling.extra:
            try_out(found, ids, self._vocabulary.size)
        if own or sampling.extra:  # anew: some processors remember what they were tried with
            found = plan(self._loaded.model, ids, arguments, own)
        processors, warpers = _split(found.processors)
        generator = torch.Generator(device).manual_seed(_seed(sampling.seed)) if found.config.do_sample else None
        key = tuple((type(each), *sorted(vars(each).items())) for each in warpers)
        return RowState(
            processors=processors,
            warpers=warpers,
            warper_key=key,
            generator=generator,
            is_seeded=sampling.seed is not None,
            **common,
        )

    def _grammar(self, sampling: SamplingParams, found: GenerationPlan, prompt_tokens: int) -> FollowGrammar | None:
        if sampling.grammar is None and sampling.json_schema is None:
            return None
        if found.mode not in _STEPPING:
            field = "grammar" if sampling.grammar is not None else "json_schema"
            reason = f"it cannot be followed by {found.mode.value.replace('_', ' ')}: leave one of the two out"
            raise UnsupportedParameter(f"{field}: {reason}", errors={f"params.{field}": [reason]})
        with self._making_compiler:
            if self._compiler is None:  # 0.2 s of a large vocabulary, which services without grammars never pay
                self._compiler = self._new_compiler()
        constraint = self._compiler.compile(sampling)
        assert constraint is not None
        return FollowGrammar(constraint, prompt_tokens, found.end_tokens)

    def _new_compiler(self) -> ConstraintCompiler:
        tokenizer = self._vocabulary.tokenizer
        ends = self._loaded.model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else ends or [tokenizer.eos_token_id]
        if ends == [None] or getattr(tokenizer, "backend_tokenizer", None) is None:
            raise UnsupportedParameter("grammars need a fast tokenizer with an end token, which this model has not")
        size = max(self._vocabulary.size, len(tokenizer))
        return ConstraintCompiler(llguidance.hf.from_tokenizer(tokenizer, n_vocab=size, eos_token=ends))


def _model_defaults(model: Any) -> dict[str, Any]:
    """How much a model generates by default, where it says so; the rest of its config `generate()` reads itself."""
    most = model.generation_config.max_new_tokens
    return {} if most is None else {"max_tokens": most}


def _split(processors: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Those up to the last that looks at more than scores, and the others."""
    last = max((index for index, each in enumerate(processors) if not isinstance(each, _SCORES_ALONE)), default=-1)
    return list(processors[: last + 1]), list(processors[last + 1 :])


def _seed(seed: int | None) -> int:
    return random.randrange(_SEEDS) if seed is None or seed < 0 else seed
