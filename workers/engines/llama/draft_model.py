"""The draft model: a smaller GGUF model with the same vocabulary, and a cache that follows that of the model."""

from collections.abc import Sequence

import numpy as np

from app.config.settings import Config
from app.errors import ModelUnavailable
from workers.engines.base import Continuation, Guess, Limits
from workers.engines.llama.context import Context, MemoryKind
from workers.engines.llama.file_trial import try_file
from workers.engines.llama.logprobs import Row
from workers.engines.llama.memory_trial import MemoryUse, try_memory
from workers.engines.llama.model import Model
from workers.engines.llama.model_params import DraftParams, LlamaModelParams
from workers.engines.llama.prompts import SequenceState
from workers.engines.shared.short_lived_thread import in_short_lived_thread
from workers.models.progress import ReportProgress
from workers.models.source import locate_draft

_OTHER_DRAFT = "choose a smaller model of the same family, or leave out model_params.draft"
_OF_THE_MODEL_ALONE = ("lora_path", "loras", "rope_freq_base", "rope_freq_scale", "chat_template", "draft")


class LlamaDraftModel:
    """Guesses what the model would choose, without grammar and dice: the likeliest token after bias and penalties.

    It computes a sequence only when it is asked for a guess, and then what it lacks. `open` makes its cache. Used by
    the thread of the loop alone.
    """

    def __init__(
        self, model: Model, memory: MemoryUse, target: Model, params: LlamaModelParams, max_tokens: int
    ) -> None:
        self.model = model
        self.memory = memory
        self.max_tokens = max_tokens
        self._params = params
        self._vocabulary = target.vocabulary
        self._context: Context | None = None
        self._cells = 0
        self._held: dict[int, list[int]] = {}  # the tokens in each slot of the cache

    def cells(self, cells_per_slot: int) -> int:
        """Return how many cells its slots need: it has no use for more than it was trained with."""
        return min(cells_per_slot, self.model.trained_tokens)

    def open(self, limits: Limits) -> None:
        """Make the cache, for a model with these limits."""
        self._cells = self.cells(limits.context_tokens)
        slots, rows = limits.slots, limits.max_batched_tokens
        self._context = Context(self.model, self._params, slots=slots, cells_per_slot=self._cells, max_rows=rows)

    def compute_once(self) -> Row:
        """Return the logits behind one token."""
        row: Row = self._opened.decode([self.model.vocabulary.bos or 0], [0], [0], [True])[0].copy()
        self.forget_all()
        return row

    def unread(self, continuation: Continuation) -> int | None:
        text = _text(continuation)
        missing = text[self._shared(continuation.slot, text) :]
        is_readable = max(missing) < self.model.vocabulary.size
        return len(missing) if is_readable and len(text) <= self._cells else None

    def guess(self, continuations: Sequence[Continuation], rows: int) -> list[Guess | None]:
        texts = [_text(continuation) for continuation in continuations]
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        wants_logits: list[bool] = []
        for left, continuation, text in zip(range(len(texts) - 1, -1, -1), continuations, texts, strict=True):
            slot = continuation.slot
            begin = self._shared(slot, text)
            self.cut(slot, begin)
            end = min(len(text), begin + rows - len(tokens) - left)
            tokens += text[begin:end]
            positions += range(begin, end)
            slots += [slot] * (end - begin)
            wants_logits += [False] * (end - begin - 1) + [end == len(text)]
            self._held[slot] = text[:end]
        logits = iter(self._opened.decode(tokens, positions, slots, wants_logits))
        return [
            self._choose(continuation, next(logits)) if len(self._held[continuation.slot]) == len(text) else None
            for continuation, text in zip(continuations, texts, strict=True)
        ]

    def move(self, source: int, target: int) -> None:
        self._opened.move(source, target)
        self._held[target] = self._held.pop(source, [])

    def copy(self, source: int, target: int, tokens: int) -> None:
        held = self._held.get(source, [])[:tokens]
        if held:
            self._opened.copy(source, target, len(held))
            self._held[target] = held

    def cut(self, slot: int, tokens: int) -> None:
        if len(self._held.get(slot, ())) > tokens:
            del self._held[slot][tokens:]
            self._opened.cut(slot, tokens)

    def forget(self, slot: int) -> None:
        if self._held.pop(slot, None):
            self._opened.forget(slot)

    def forget_all(self) -> None:
        self._held.clear()
        self._opened.forget_all()

    def used_cells(self) -> int:
        return self._opened.used_cells()

    def close(self) -> None:
        if self._context is not None:
            self._context.close()
        self.model.vocabulary.close()
        self.model.close()

    @property
    def _opened(self) -> Context:
        assert self._context is not None
        return self._context

    def _shared(self, slot: int, text: Sequence[int]) -> int:
        """Return how many tokens of the text the cache has and need not be computed: never the last, it has the logits.

        They differ where guesses have failed, so near the end.
        """
        held = self._held.get(slot, [])
        shared = min(len(held), len(text) - 1)
        while held[:shared] != text[:shared]:
            shared -= 1
        return shared

    def _choose(self, continuation: Continuation, row: Row) -> Guess | None:
        vocabulary = self._vocabulary
        if len(row) < vocabulary.size:
            row = np.pad(row, (0, vocabulary.size - len(row)), constant_values=-np.inf)
        row = row[: vocabulary.size]
        state: SequenceState = continuation.prompt.state
        state.sampler.edit(row, continuation.prompt.tokens, continuation.generated)
        token = int(row.argmax())
        if state.sampler.ends(token):
            return None
        return Guess(token, 1 / float(np.exp(row - row[token]).sum()))


def load_draft_model(config: Config, draft: DraftParams, target: Model, report: ReportProgress) -> LlamaDraftModel:
    """Load the draft model of `target`, without its cache.

    Raises:
        ConfigError, ModelUnavailable: there is none, or it cannot guess for this model.
    """
    path = locate_draft(config, draft.source, report)
    report("loading the draft model", None)
    try_file(path, {key: value for key, value in config.model_params.items() if key not in _OF_THE_MODEL_ALONE})
    params = LlamaModelParams.read(config.model_params).of_draft
    model = Model(path, params, report)
    memory = None
    try:
        fault = _difference(model, target)
        if fault is None:
            model.check_cache_types()
            memory = in_short_lived_thread(lambda: try_memory(model, params))
            fault = None if memory.kind is MemoryKind.WHOLE else "it has a cache that cannot be cut where a guess fails"
    except BaseException:
        model.close()
        raise
    if fault is not None or memory is None:
        model.close()
        raise ModelUnavailable(f"model_params.draft: {path} cannot guess for {target.path}: {fault}; {_OTHER_DRAFT}")
    return LlamaDraftModel(model, memory, target, params, draft.max_tokens)


def reject_unverifiable(target: Model, memory: MemoryUse) -> None:
    """Raise `ModelUnavailable` if the model cannot verify the guesses of a draft model."""
    if memory.kind is not MemoryKind.WHOLE:
        raise ModelUnavailable(
            f"{target.path} has a cache that cannot be cut, so that no guesses can be verified: "
            "leave out model_params.draft"
        )


def _difference(model: Model, target: Model) -> str | None:
    if not model.is_causal:
        return "it does not generate"
    difference = model.vocabulary.difference_from(target.vocabulary)
    return None if difference is None else f"it has another vocabulary ({difference})"


def _text(continuation: Continuation) -> list[int]:
    return [*continuation.prompt.tokens, *continuation.generated]
