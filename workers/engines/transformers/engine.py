"""The huggingface family's engine: rows of a batch over slots, `generate()` for the rest, embeddings."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from app.config.adapters import Adapter, configured_adapters
from app.config.settings import Config
from app.errors import ModelUnavailable, UnsupportedParameter
from app.jobs.job import AdapterUse, Chat, JobRequest, Text
from workers.engines.base import Chunk, Engine, Limits, Prompt, Sampled, SlotCache
from workers.engines.shared.chat_template import ChatTemplate
from workers.engines.shared.load_faults import load_faults_explained
from workers.engines.shared.logprobs import explains_prompt, prompt_logprobs
from workers.engines.shared.named_templates import template_of_model
from workers.engines.shared.short_lived_thread import in_short_lived_thread
from workers.engines.transformers.embeddings import TransformersEmbedder
from workers.engines.transformers.forward.adapters import AdapterPlan, running
from workers.engines.transformers.forward.packing import pack_linears
from workers.engines.transformers.forward.ragged import Row
from workers.engines.transformers.forward.ragged_layer import (
    fuse_for_ragged_layers,
    use_plain_layers,
    use_ragged_layers,
)
from workers.engines.transformers.forward.slot_model import SlotModel
from workers.engines.transformers.generation.logprobs import token_logprobs
from workers.engines.transformers.generation.prompts import TransformersPromptMaker
from workers.engines.transformers.generation.sampling import Choice, choose
from workers.engines.transformers.generation.solo import SoloGenerator
from workers.engines.transformers.generation.states import RowState, State
from workers.engines.transformers.loading.adapters import TransformersAdapters
from workers.engines.transformers.loading.layout import (
    CacheLayout,
    batched_limits,
    context_tokens,
    embedding_tokens,
    layout_of,
)
from workers.engines.transformers.loading.model import LoadedModel, load
from workers.engines.transformers.loading.params import ModelKind, TransformersModelParams, TransformersSetupParams
from workers.engines.transformers.loading.self_check import disagreement
from workers.engines.transformers.loading.source import check_location, locate
from workers.engines.transformers.vocabulary import TransformersVocabulary
from workers.models.adapter_source import check_adapter_sources, locate_adapter, place_of
from workers.models.progress import ReportProgress, silent

logger = logging.getLogger(__name__)


class HuggingfaceEngine(Engine):
    """A model of transformers. `Prompt.state` is a `RowState` or a `SoloState`.

    Another family that ends up with a model of transformers derives from it and brings its own `load`.
    """

    def __init__(self, config: Config, report: ReportProgress) -> None:
        params = TransformersModelParams.read(config.model_params)
        setup = TransformersSetupParams.read(config.setup_params)
        self._config = config
        self._slots: SlotModel | None = None
        with load_faults_explained(config.model_name):
            self._loaded, self._limits = in_short_lived_thread(lambda: self._prepare(config, setup, params, report))
        trusts = setup.trust_remote_code or params.trust_remote_code
        size = self._loaded.text_config.vocab_size
        self._vocabulary = TransformersVocabulary(self._loaded.tokenizer, size)
        self._vocabulary.model_nice = config.worker.nice
        is_configured = "chat_template" in params.for_tokenizer
        names = [config.model_name, self._loaded.source.folder.name]
        self._template = _chat_template(self._loaded.tokenizer, names, is_configured=is_configured)
        if not self._only_embeds:
            self._template.check()
        self._embedder: TransformersEmbedder | None = None
        self._adapters = TransformersAdapters(self._loaded)
        for adapter in configured_adapters(config).values():
            folder = locate_adapter(config, adapter, report, single_file=False)
            self._adapters.load(adapter, folder, place_of(adapter))
        self._prompts = None if self._only_embeds else self._prompt_maker(params, trusts)

    @classmethod
    def check(cls, config: Config) -> None:
        TransformersModelParams.read(config.model_params)
        check_adapter_sources(config, single_file=False)
        check_location(config, TransformersSetupParams.read(config.setup_params))

    def load(
        self, config: Config, setup: TransformersSetupParams, params: TransformersModelParams, report: ReportProgress
    ) -> LoadedModel:
        """Find the model and load it. Raises ConfigError, ModelUnavailable."""
        return load(locate(config, setup, report), setup, params, report)

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def computes_on_cpu(self) -> bool:
        return self._loaded.device.type == "cpu"

    @property
    def device(self) -> str:
        return str(self._loaded.device.type)

    @property
    def default_params(self) -> Mapping[str, float]:
        return {} if self._prompts is None else self._prompts.default_params

    def prepare(self, request: JobRequest) -> Prompt:
        if self._prompts is None:
            raise UnsupportedParameter("this model reads texts and writes none: use embeddings")
        adapters = self._adapters.of(request.adapters)
        prompt = self._prompts.prepare(request)
        prompt.state.adapters = adapters
        return prompt

    def resume(self, prompt: Prompt, generated: Sequence[int]) -> list[bytes]:
        state: State = prompt.state
        return state.resume(generated)

    def start(self, slot: int, prompt: Prompt) -> None:
        self._generation.cut(slot, 0)

    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        rows = [
            Row(c.slot, c.tokens, c.position, explains_prompt(c) or c.drafted > 0, c.prompt.state.adapters)
            for c in chunks
        ]
        logits = self._generation.run(rows)
        for chunk, its_logits in zip(chunks, logits, strict=True):
            state: RowState = chunk.prompt.state
            state.start()
            if explains_prompt(chunk):
                state.prompt_logprobs += prompt_logprobs(chunk, its_logits, self._vocabulary, token_logprobs)
        sampling = [index for index, chunk in enumerate(chunks) if chunk.samples]
        if not sampling:
            return []
        return self._sample([chunks[index] for index in sampling], [logits[index] for index in sampling])

    @property
    def slot_cache(self) -> SlotCache | None:
        return self._slots

    @property
    def shares_prefixes(self) -> bool:
        return self._slots is not None

    @property
    def verifies_drafts(self) -> bool:
        return self._slots is not None

    def release(self, slot: int | None, prompt: Prompt) -> None:
        if slot is not None:
            self._generation.cut(slot, 0)

    def reset(self) -> None:
        if self._slots is not None:
            self._slots.forget_all()

    def used_cells(self) -> int:
        return 0 if self._slots is None else self._slots.used_cells()

    def tokenize(self, text: str | Chat, *, add_special: bool) -> list[int]:
        if isinstance(text, str):
            return self._vocabulary.tokens_of(text, "text", add_special=add_special)
        return self._vocabulary.tokens_of(self._template.render(text), "messages", add_special=add_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self._vocabulary.detokenize(self._vocabulary.checked(tokens, "tokens"))

    def embed(
        self, texts: Sequence[Text], *, first: int = 0, adapters: Sequence[AdapterUse] = ()
    ) -> list[tuple[list[float], int]]:
        if self._embedder is None:
            self._embedder = TransformersEmbedder(self._loaded, self._vocabulary, self._limits.context_tokens)
        embedder, plan = self._embedder, AdapterPlan.everywhere(self._adapters.of(adapters))

        def embed() -> list[tuple[list[float], int]]:
            with running(plan):
                return embedder.embed(texts, first=first)

        return in_short_lived_thread(embed)

    def load_adapter(self, adapter: Adapter) -> None:
        folder = locate_adapter(self._config, adapter, silent, single_file=False)
        self._adapters.load(adapter, folder, place_of(adapter))

    def unload_adapter(self, name: str, version: str) -> None:
        self._adapters.unload(name, version)

    def close(self) -> None:
        self._template.close()
        self._vocabulary.close()

    @property
    def _only_embeds(self) -> bool:
        return self._loaded.kind is ModelKind.EMBEDDING

    def _prompt_maker(self, params: TransformersModelParams, trusts_remote_code: bool) -> TransformersPromptMaker:
        return TransformersPromptMaker(
            self._loaded,
            self._vocabulary,
            self._template,
            self._limits.context_tokens,
            SoloGenerator(self._loaded, self._vocabulary, trusts_remote_code=trusts_remote_code),
            batched=self._slots is not None,
            seed=params.seed,
            trusts_remote_code=trusts_remote_code,
        )

    @property
    def _generation(self) -> SlotModel:
        assert self._slots is not None
        return self._slots

    def _prepare(
        self, config: Config, setup: TransformersSetupParams, params: TransformersModelParams, report: ReportProgress
    ) -> tuple[LoadedModel, Limits]:
        loaded = self.load(config, setup, params, report)
        fuse_for_ragged_layers(loaded)
        pack_linears(loaded)
        _compute_once(loaded)
        return loaded, self._prepare_slots(loaded, params, config.worker.slots)

    def _prepare_slots(self, loaded: LoadedModel, params: TransformersModelParams, wanted_slots: int | None) -> Limits:
        """Make slots where the model's cache can be cut into them; else requests run one at a time."""
        if loaded.kind is ModelKind.EMBEDDING:
            return Limits(slots=1, context_tokens=embedding_tokens(loaded), max_batched_tokens=params.n_batch)
        cells = context_tokens(loaded, params)
        layout = layout_of(loaded, cells)
        if layout is not None:
            limits = batched_limits(loaded, layout, cells, params, wanted_slots)
            self._slots = self._agreeing_slots(loaded, layout, slots=limits.slots, cells=cells)
            if self._slots is not None:
                return limits
        return Limits(slots=1, context_tokens=cells, max_batched_tokens=params.n_batch)

    def _agreeing_slots(self, loaded: LoadedModel, layout: CacheLayout, *, slots: int, cells: int) -> SlotModel | None:
        """Return the model over slots, with ragged batches if its layers take them. None: its logits differ over slots
        from those without.
        """
        name = type(loaded.model).__name__
        if use_ragged_layers(loaded, layout):
            slot_model = SlotModel(loaded, layout, slots=slots, cells=cells, ragged=True)
            fault = disagreement(loaded, slot_model)
            if fault is None:
                return slot_model
            logger.warning("%s takes no ragged batches (%s): its batches are padded", name, fault)
            use_plain_layers(loaded)
        slot_model = SlotModel(loaded, layout, slots=slots, cells=cells)
        fault = disagreement(loaded, slot_model)
        if fault is None:
            return slot_model
        logger.warning("%s cannot be batched (%s): requests run one at a time", name, fault)
        return None

    @torch.inference_mode()
    def _sample(self, chunks: Sequence[Chunk], logits: Sequence[Tensor]) -> list[Sampled]:
        """logits: of each chunk, `[tokens, vocabulary]`; of its last token and its guesses at least."""
        sampled: list[list[Sampled]] = [[] for _ in chunks]
        choosing = list(range(len(chunks)))
        while choosing:  # first behind each last token, then behind each first guess that holds, ...
            mine = [chunks[index] for index in choosing]
            ahead = [chunks[index].drafted - len(sampled[index]) for index in choosing]  # guesses behind the token
            ends = [c.position + len(c.tokens) - guesses for c, guesses in zip(mine, ahead, strict=True)]
            ids = [self._generation.ids[c.slot : c.slot + 1, :end] for c, end in zip(mine, ends, strict=True)]
            at = [logits[index][-1 - guesses] for index, guesses in zip(choosing, ahead, strict=True)]
            scores = torch.stack(at).to(torch.float32)
            choices = choose([chunk.prompt.state for chunk in mine], ids, scores)
            for index, choice, row in zip(choosing, choices, scores, strict=True):
                sampled[index].append(self._sampled(chunks[index], choice, row))
            choosing = [index for index in choosing if _guess_holds(chunks[index], sampled[index])]
        return [replace(first, accepted=accepted) if accepted else first for first, *accepted in sampled]

    def _sampled(self, chunk: Chunk, choice: Choice, logits: Tensor) -> Sampled:
        state: RowState = chunk.prompt.state
        try:
            if choice.error is not None:
                raise choice.error
            if state.grammar is not None:
                state.grammar.accept([choice.token])
        except Exception as error:  # of this row; the other rows continue
            return Sampled(token=0, piece=b"", error=error)
        rivals, logprobs = chunk.prompt.sampling.logprobs, None
        if rivals is not None:
            (logprobs,) = token_logprobs(logits[None], [choice.token], rivals, self._vocabulary)
        return state.sampled(
            choice.token, logprobs=logprobs, prompt_logprobs=[] if chunk.generated else state.prompt_logprobs
        )


def _compute_once(loaded: LoadedModel) -> None:
    """Pass one token through the model, so that weights that do not work together are found now and not by a client."""
    if loaded.kind is ModelKind.EMBEDDING:
        ids = torch.zeros((1, 1), dtype=torch.long, device=loaded.device)
        with torch.inference_mode():
            computed = loaded.model(input_ids=ids)[0]
    else:
        computed = loaded.last_logits([0])
    if computed.isnan().any():
        raise ModelUnavailable(
            f"{loaded.source.label} computes no numbers: its weights are damaged, or too large for dtype"
        )


def _guess_holds(chunk: Chunk, sampled: Sequence[Sampled]) -> bool:
    """Is the last chosen token the next guess, so that the one behind it can be chosen too?"""
    return len(sampled) <= chunk.drafted and sampled[-1].confirms(chunk.draft[len(sampled) - 1])


def _chat_template(tokenizer: Any, model_names: Sequence[str], *, is_configured: bool) -> ChatTemplate:
    """The tokenizer's own template, or that of `model_params`, which the tokenizer was given, or the one that the names
    of the model speak for. Some models have a second one for tools.
    """
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    special = {name: str(getattr(tokenizer, name, None) or "") for name in names}
    own = getattr(tokenizer, "chat_template", None)
    if own is None and (named := template_of_model(model_names)):
        own = named.source
    if not isinstance(own, dict):
        return ChatTemplate(own, special_tokens=special, is_configured=is_configured)
    return ChatTemplate(
        own.get("default"), tool_source=own.get("tool_use"), special_tokens=special, is_configured=is_configured
    )
