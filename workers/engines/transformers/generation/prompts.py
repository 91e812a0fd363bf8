"""From a request to a prompt of the huggingface family: what `generate()` would do with it, as a row or by itself."""

import random
from collections.abc import Mapping, Sequence
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

from app.errors import UnsupportedParameter
from app.jobs.sampling import SamplingParams
from workers.engines.base import Prompt, SoloBackend
from workers.engines.shared.chat_template import ChatTemplate
from workers.engines.shared.constraint import ConstraintCompiler
from workers.engines.shared.prompts import PromptMaker
from workers.engines.transformers.generation.arguments import DEFAULTS, generate_arguments
from workers.engines.transformers.generation.plan import GenerationPlan, check_mode, plan, runs_solo, try_out
from workers.engines.transformers.generation.processors import FollowGrammar, common_processors
from workers.engines.transformers.generation.states import RowState, SoloState, State
from workers.engines.transformers.loading.model import LoadedModel
from workers.engines.transformers.vocabulary import TransformersVocabulary

_STREAMING = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE, GenerationMode.ASSISTED_GENERATION)
_STEPPING = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)  # one sequence, one token after the other
_ONLY_SCORES = (
    EpsilonLogitsWarper,
    LogitNormalization,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
_SEEDS = 2**32


class TransformersPromptMaker(PromptMaker):
    """Args: batched: the model can be a row of a batch. seed: of requests that name none. trusts_remote_code: decoding
    modes may be fetched from the hub.
    """

    _vocabulary: TransformersVocabulary

    def __init__(
        self,
        loaded: LoadedModel,
        vocabulary: TransformersVocabulary,
        template: ChatTemplate,
        context_tokens: int,
        solo: SoloBackend,
        *,
        batched: bool,
        seed: int | None,
        trusts_remote_code: bool,
    ) -> None:
        defaults = DEFAULTS | _model_defaults(loaded.model) | {"seed": seed}
        super().__init__(vocabulary, template, defaults, context_tokens)
        self._loaded = loaded
        self._solo = solo
        self._batched = batched
        self._trusts_remote_code = trusts_remote_code

    def _prompt(self, sampling: SamplingParams, given: Mapping[str, Any], tokens: list[int]) -> Prompt:
        arguments = generate_arguments(sampling, given, self._vocabulary.size)
        ids = torch.tensor([tokens], device=self._loaded.device)
        planned = plan(self._loaded.model, ids, arguments, [])
        check_mode(planned, trusts_remote_code=self._trusts_remote_code)
        grammar = self._grammar(sampling, planned, len(tokens))
        own = common_processors(sampling, planned.end_tokens, self._loaded.device)
        own += [grammar] if grammar else []
        common = {
            "spell": self._vocabulary.spell_after(tokens),
            "end_tokens": frozenset() if sampling.ignore_eos and grammar is None else frozenset(planned.end_tokens),
            "grammar": grammar,
            "max_seconds": planned.config.max_time,
        }
        solo = not self._batched or runs_solo(planned, arguments)
        state: State
        if solo:
            streams = planned.mode in _STREAMING and sampling.logprobs is None
            seed = _seed(sampling.seed)
            state = SoloState(arguments=arguments, processors=own, streams=streams, seed=seed, **common)
        else:
            state = self._row_state(sampling, arguments, ids, planned, own, common)
        is_seeded = sampling.seed is not None and sampling.seed >= 0
        return Prompt(
            tokens=tokens,
            sampling=sampling,
            state=state,
            solo=self._solo if solo else None,
            is_deterministic=not planned.config.max_time and (is_seeded or not planned.config.do_sample),
        )

    def _row_state(
        self,
        sampling: SamplingParams,
        arguments: Mapping[str, Any],
        ids: torch.Tensor,
        planned: GenerationPlan,
        own: Sequence[Any],
        common: Mapping[str, Any],
    ) -> RowState:
        if sampling.extra:
            try_out(planned, ids, self._vocabulary.size)
        if own or sampling.extra:  # anew: some processors remember what they were tried with
            planned = plan(self._loaded.model, ids, arguments, own)
        processors, warpers = _split(planned.processors)
        samples = planned.config.do_sample
        return RowState(
            processors=processors,
            warpers=warpers,
            warper_key=tuple((type(each), *sorted(vars(each).items())) for each in warpers),
            generator=torch.Generator(ids.device).manual_seed(_seed(sampling.seed)) if samples else None,
            is_seeded=sampling.seed is not None,
            **common,
        )

    def _first_tokens(self) -> list[int | None]:
        config = self._loaded.model.generation_config
        return [config.bos_token_id, self._vocabulary.tokenizer.bos_token_id, config.eos_token_id]

    def _grammar(self, sampling: SamplingParams, planned: GenerationPlan, prompt_tokens: int) -> FollowGrammar | None:
        given = sampling.constraints
        if given and planned.mode not in _STEPPING:
            reason = f"it cannot be followed by {planned.mode.value.replace('_', ' ')}: leave one of the two out"
            raise UnsupportedParameter(f"{given[0]}: {reason}", errors={f"params.{given[0]}": [reason]})
        constraint = self._constraint(sampling)
        return None if constraint is None else FollowGrammar(constraint, prompt_tokens, planned.end_tokens)

    def _new_compiler(self) -> ConstraintCompiler:
        tokenizer = self._vocabulary.tokenizer
        ends = self._loaded.model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else ends or [tokenizer.eos_token_id]
        if ends == [None] or getattr(tokenizer, "backend_tokenizer", None) is None:
            raise UnsupportedParameter("grammars need a fast tokenizer with an end token, which this model has not")
        size = max(self._vocabulary.size, len(tokenizer))
        followed = llguidance.hf.from_tokenizer(tokenizer, n_vocab=size, eos_token=ends)
        return ConstraintCompiler(followed, self._context_tokens)


def _model_defaults(model: Any) -> dict[str, Any]:
    """Return the default length of the model's generation config; `generate()` reads the rest of it by itself."""
    most = model.generation_config.max_new_tokens
    return {} if most is None else {"max_tokens": most}


def _split(processors: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return the processors up to the last one that looks at more than scores, and the others."""
    last = max((index for index, each in enumerate(processors) if not isinstance(each, _ONLY_SCORES)), default=-1)
    return list(processors[: last + 1]), list(processors[last + 1 :])


def _seed(seed: int | None) -> int:
    return random.randrange(_SEEDS) if seed is None or seed < 0 else seed
