"""The caches of the model and of its draft model: what happens to a slot happens to both."""

from workers.engines.llama.context import Context
from workers.engines.llama.draft_model import LlamaDraftModel


class SlotCaches:
    def __init__(self, context: Context, draft: LlamaDraftModel | None) -> None:
        self._caches: list[Context | LlamaDraftModel] = [context] if draft is None else [context, draft]

    def move(self, source: int, target: int) -> None:
        for cache in self._caches:
            cache.move(source, target)

    def copy(self, source: int, target: int, tokens: int) -> None:
        for cache in self._caches:
            cache.copy(source, target, tokens)

    def cut(self, slot: int, tokens: int) -> None:
        for cache in self._caches:
            cache.cut(slot, tokens)

    def forget(self, slot: int) -> None:
        for cache in self._caches:
            cache.forget(slot)

    def forget_all(self) -> None:
        for cache in self._caches:
            cache.forget_all()
