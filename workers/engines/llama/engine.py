"""The llama family's engine: many sequences in one `llama_decode`."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence

from app.config.adapters import Adapter, configured_adapters
from app.config.finding import Finding
from app.config.settings import Config
from app.errors import ConfigError, ModelUnavailable, UnsupportedParameter
from app.freed_memory import own_pages_from
from app.jobs.job import AdapterUse, Chat, JobRequest, Text
from workers.engines.base import CheckpointCache, Chunk, DraftModel, Engine, Limits, Prompt, Sampled, SlotCache
from workers.engines.llama.context import Context, MemoryKind
from workers.engines.llama.diagnosis import findings
from workers.engines.llama.draft_model import LlamaDraftModel, load_draft_model, reject_unverifiable
from workers.engines.llama.embeddings import LlamaEmbedder, PoolingType, pooling_of
from workers.engines.llama.file_trial import try_file
from workers.engines.llama.limits import choose_limits
from workers.engines.llama.memory_trial import MemoryUse, try_memory
from workers.engines.llama.model import Model, gguf_file
from workers.engines.llama.model_params import LlamaModelParams
from workers.engines.llama.prompts import DEFAULTS, LlamaPromptMaker, SequenceState
from workers.engines.llama.slot_caches import SlotCaches
from workers.engines.llama.token_choice import choose_tokens, wants_logits_of
from workers.engines.shared.chat_template import ChatTemplate
from workers.engines.shared.load_faults import load_faults_explained
from workers.engines.shared.named_templates import template_of_model
from workers.engines.shared.resources import one_at_a_time
from workers.engines.shared.short_lived_thread import in_short_lived_thread
from workers.models.adapter_source import check_adapter_sources, locate_adapter, place_of
from workers.models.progress import ReportProgress, silent
from workers.models.source import check_draft, check_source, locate_model

_ADAPTER_BYTES = 4_194_304  # of an adapter that leaves nothing when it is unloaded; a smaller one may leave as much

logger = logging.getLogger(__name__)


class LlamaEngine(Engine):
    """A GGUF model behind llama.cpp. `Prompt.state` is a `SequenceState`."""

    def __init__(self, config: Config, report: ReportProgress) -> None:
        params = LlamaModelParams.read(config.model_params)
        path = gguf_file(locate_model(config, report, single_file=True))
        report("reading the weights", None)
        try_file(path, config.model_params)
        self._config = config
        self._params = params
        self._embedder: LlamaEmbedder | None = None
        self._context: Context | None = None
        self._draft: LlamaDraftModel | None = None
        with load_faults_explained(str(path)):
            self._model = Model(path, params, report)
            self._model.vocabulary.model_nice = config.worker.nice
            try:
                _reject_reranker(self._model)
                self._load_adapters(config, params, report)
                if params.draft is not None and config.worker.speculation:
                    self._draft = load_draft_model(config, params.draft, self._model, report)
                with one_at_a_time(path):  # another worker that starts must see the memory that this one leaves
                    self._memory = in_short_lived_thread(lambda: _memory_use(self._model, params))
                    if self._draft is not None:
                        reject_unverifiable(self._model, self._memory)
                    self._limits = choose_limits(self._model, self._memory, self._draft, params, config.worker.slots)
                    self._context = self._new_context() if self._model.is_causal else None
                    if self._draft is not None:
                        self._draft.open(self._limits)
                in_short_lived_thread(self._compute_once)
            except BaseException:
                self._free()
                raise
        if config.adapters.runtime_loading:
            own_pages_from(_ADAPTER_BYTES)
        self._template = _chat_template(self._model, params, config.model_name)
        if self._model.is_causal:
            self._template.check()
        self._prompts = LlamaPromptMaker(
            self._model.vocabulary, self._template, _defaults(params), self._limits.context_tokens
        )

    @classmethod
    def check(cls, config: Config) -> None:
        params = LlamaModelParams.read(config.model_params)
        if params.draft is not None:
            check_draft(params.draft.source)
        check_adapter_sources(config, single_file=True)
        path = check_source(config, single_file=True)
        if path is not None:
            gguf_file(path)
        elif "filename" not in config.setup_params:
            raise ConfigError("setup_params.filename is missing: name a .gguf file of the repository")

    @classmethod
    def diagnose(cls, config: Config) -> Iterator[Finding]:
        return findings(config)

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def token_bytes(self) -> int:
        return self._model.vocabulary.token_bytes

    @property
    def computes_on_cpu(self) -> bool:
        return self._model.gpu_share < 1

    @property
    def device(self) -> str:
        share = self._model.gpu_share
        return "cpu" if not share else "gpu" if share == 1 else f"cpu, and gpu for {share:.0%} of the layers"

    @property
    def default_params(self) -> Mapping[str, float]:
        return self._prompts.default_params

    def prepare(self, request: JobRequest) -> Prompt:
        if self._context is None:
            raise UnsupportedParameter("this model reads texts and writes none: use embeddings")
        adapters = self._model.adapters.of(request.adapters)
        prompt = self._prompts.prepare(request)
        prompt.state.adapters = adapters
        return prompt

    def resume(self, prompt: Prompt, generated: Sequence[int]) -> list[bytes]:
        state: SequenceState = prompt.state
        state.sampler.resume(generated)
        return [self._model.vocabulary.piece(token) for token in generated]

    def start(self, slot: int, prompt: Prompt) -> None:
        self._slots.forget(slot)

    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        wants_logits: list[bool] = []
        for chunk in chunks:
            count = len(chunk.tokens)
            tokens.extend(chunk.tokens)
            positions.extend(range(chunk.position, chunk.position + count))
            slots.extend([chunk.slot] * count)
            wants_logits.extend(wants_logits_of(chunk))
        adapters = chunks[0].prompt.state.adapters  # all have the same
        logits = self._generation.decode(tokens, positions, slots, wants_logits, adapters)
        return choose_tokens(chunks, logits, self._generation.pointer, self._model.vocabulary)

    @property
    def slot_cache(self) -> SlotCache | None:
        return None if self._context is None else self._slots

    @property
    def checkpoint_cache(self) -> CheckpointCache | None:
        return self._context if self._memory.kind is MemoryKind.STATES else None

    @property
    def shares_prefixes(self) -> bool:
        return self._memory.kind is not MemoryKind.FIXED

    @property
    def mixes_adapters(self) -> bool:
        return False

    @property
    def verifies_drafts(self) -> bool:
        return self._memory.kind is MemoryKind.WHOLE

    @property
    def draft_model(self) -> DraftModel | None:
        return self._draft

    def release(self, slot: int | None, prompt: Prompt) -> None:
        if slot is not None:
            self._slots.forget(slot)
        if isinstance(prompt.state, SequenceState):
            prompt.state.sampler.close()
            prompt.state.adapters = ()
            self._model.adapters.free_unused()

    def reset(self) -> None:
        self._slots.forget_all()

    def used_cells(self) -> int:
        return 0 if self._context is None else self._context.used_cells()

    def tokenize(self, text: str | Chat, *, add_special: bool) -> list[int]:
        if isinstance(text, str):
            return self._model.vocabulary.tokens_of(text, "text", add_special=add_special)
        return self._model.vocabulary.tokens_of(self._template.render(text), "messages", add_special=add_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        vocabulary = self._model.vocabulary
        return vocabulary.detokenize(vocabulary.checked(tokens, "tokens"))

    def embed(
        self, texts: Sequence[Text], *, first: int = 0, adapters: Sequence[AdapterUse] = ()
    ) -> list[tuple[list[float], int]]:
        if self._embedder is None:
            self._embedder = LlamaEmbedder(self._model, self._params, self._limits.context_tokens)
        return self._embedder.embed(texts, first=first, adapters=self._model.adapters.of(adapters))

    def close(self) -> None:
        self._template.close()
        self._model.vocabulary.close()
        self._free()

    def load_adapter(self, adapter: Adapter) -> None:
        path = locate_adapter(self._config, adapter, silent, single_file=True)
        self._model.adapters.load(adapter, path, place_of(adapter))

    def unload_adapter(self, name: str, version: str) -> None:
        self._model.adapters.unload(name, version)

    def _load_adapters(self, config: Config, params: LlamaModelParams, report: ReportProgress) -> None:
        if params.lora_path is not None:
            self._model.adapters.load_always_on(params.lora_path)
        for adapter in configured_adapters(config).values():
            path = locate_adapter(config, adapter, report, single_file=True)
            self._model.adapters.load(adapter, path, place_of(adapter))

    def _free(self) -> None:
        for part in (self._embedder, self._context, self._draft, self._model):
            if part is not None:
                part.close()

    @property
    def _slots(self) -> SlotCaches:
        return SlotCaches(self._generation, self._draft)

    @property
    def _generation(self) -> Context:
        assert self._context is not None
        return self._context

    def _new_context(self) -> Context:
        return Context(
            self._model,
            self._params,
            slots=self._limits.slots,
            cells_per_slot=self._limits.context_tokens,
            max_rows=self._limits.max_batched_tokens,
            memory=self._memory.kind,
        )

    def _compute_once(self) -> None:
        """Compute one token, or the embedding of a text, so that damaged weights are found now and not by a client."""
        if self._context is None:
            [(results, _)] = self.embed(["a"])
        else:
            results = self._context.decode([self._model.vocabulary.bos or 0], [0], [0], [True])[0].tolist()
            self._context.forget_all()
        computed = {self._model.path: results}
        if self._draft is not None:
            computed[self._draft.model.path] = self._draft.compute_once().tolist()
        for path, numbers in computed.items():
            if any(map(math.isnan, numbers)):
                raise ModelUnavailable(f"{path} computes no numbers: its weights are damaged, download it again")


def _reject_reranker(model: Model) -> None:
    if not model.is_causal and pooling_of(model) is PoolingType.RANK:
        reason = "it ranks texts, and neither generates nor has embeddings"
        raise ModelUnavailable(f"{model.path} serves no request: {reason}; use another model")


def _memory_use(model: Model, params: LlamaModelParams) -> MemoryUse:
    if not model.is_causal:
        return MemoryUse(MemoryKind.FIXED, 0, 0)
    model.check_cache_types()
    return try_memory(model, params)


def _defaults(params: LlamaModelParams) -> dict[str, object]:
    return {**DEFAULTS, "repeat_last_n": params.last_n_tokens_size, "seed": params.seed}


def _chat_template(model: Model, params: LlamaModelParams, model_name: str) -> ChatTemplate:
    """`model_params.chat_template`, else the model's own, else the one that its names speak for. Some models have a
    second one for tools.
    """
    vocabulary = model.vocabulary
    special = {"bos_token": vocabulary.bos, "eos_token": vocabulary.eos}
    tokens = {name: "" if token is None else vocabulary.text(token) for name, token in special.items()}
    if params.chat_template is not None:
        return ChatTemplate(params.chat_template, special_tokens=tokens, is_configured=True)
    own = model.metadata("tokenizer.chat_template")
    if own is None and (named := template_of_model([model_name, model.metadata("general.name"), model.path.stem])):
        own = named.source
    return ChatTemplate(own, tool_source=model.metadata("tokenizer.chat_template.tool_use"), special_tokens=tokens)
