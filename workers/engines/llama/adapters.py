"""The LoRA adapters of a model: files that change what its contexts compute, one set at a time in each context.

llama.cpp keeps them in the model, reads that list while it plans a computation, and does not look whether a context
still uses one that is freed. So they are loaded and freed only while no context computes. Contexts compute at the same
time: a long embedding does not hold up those who generate. Where they overlap without a pause, those that begin wait
for a load or a release that is due, and the next load waits for those.
"""

import ctypes
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp

from app.config.adapters import Adapter
from app.errors import ModelUnavailable
from app.jobs.job import AdapterUse
from workers.engines.llama.adapter_file import check_adapter_file
from workers.engines.llama.library import library_log
from workers.engines.shared.loaded_adapters import loaded_adapters


class LlamaAdapter:
    """A loaded adapter. It is freed some time after the last reference to it is gone."""

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer


AdapterSet = tuple[tuple[LlamaAdapter, float], ...]
"""Adapters and their scales."""

_PIECE_BYTES = 1_048_576


class LlamaAdapters:
    """Any thread may use it. model: llama.cpp's pointer."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._lock = threading.Condition(threading.RLock())
        self._computing = 0  # contexts
        self._held_up = 0  # computations that wait for a load or a release
        self._is_loading = False
        self._always: AdapterSet = ()
        self._by_key: dict[tuple[str, str], LlamaAdapter] = {}
        self._active: dict[int, frozenset[int]] = {}  # pointers of adapters, by that of the context
        self._unused: deque[int] = deque()  # pointers of adapters to free
        self._is_closed = False

    def load_always_on(self, path: Path) -> None:
        """Load an adapter that changes every computation. Raises ModelUnavailable."""
        self._always += ((self._loaded(path, "model_params.lora_path"), 1.0),)

    def load(self, adapter: Adapter, path: Path, where: str) -> None:
        """Load an adapter for requests. where: what names it, for errors. Raises ModelUnavailable."""
        loaded = self._loaded(path, where)
        self._by_key[adapter.name, adapter.version] = loaded

    def unload(self, name: str, version: str) -> None:
        """Forget an adapter. It is freed when no request uses it any more."""
        self._by_key.pop((name, version), None)
        self.free_unused()

    def of(self, uses: Sequence[AdapterUse]) -> AdapterSet:
        """Return the adapters that a request uses. Raises InvalidRequest."""
        return loaded_adapters(uses, self._by_key)

    @contextmanager
    def active(self, context: Any, adapters: AdapterSet = ()) -> Iterator[None]:
        """While the block computes in a context, these adapters change it, beside those that always do."""
        with self._lock:
            self._wait_for_turn()
            self._activate(context, adapters)
            self._computing += 1
        try:
            yield
        finally:
            with self._lock:
                self._computing -= 1
                self._free_unused()
                self._lock.notify_all()

    @contextmanager
    def new_context(self) -> Iterator[None]:
        """While the block makes a context, no adapter is loaded or freed."""
        with self._lock:
            yield

    def forget_context(self, context: Any) -> None:
        """Record that a context is about to be freed."""
        with self._lock:
            self._active.pop(_address(context), None)

    def free_unused(self) -> None:
        """Free the adapters that nothing refers to any more, now or before a later computation."""
        if self._unused:
            with self._lock:
                self._free_unused()

    def close(self) -> None:
        """Record that the model is about to be freed, and all adapters with it."""
        with self._lock:
            self._is_closed = True
            self._unused.clear()

    def _loaded(self, path: Path, where: str) -> LlamaAdapter:
        check_adapter_file(path, where)
        _read_through(path)
        with self._nothing_computed():
            library_log().clear()
            pointer = llama_cpp.llama_adapter_lora_init(self._model, str(path).encode())
            if not pointer:
                reason = library_log().last_errors()
                raise ModelUnavailable(
                    f"{where}: {path} could not be applied ({reason}): give an adapter of this model"
                )
        adapter = LlamaAdapter(_address(pointer))
        weakref.finalize(adapter, self._unused.append, adapter.pointer).atexit = False
        return adapter

    def _wait_for_turn(self) -> None:
        """Wait, with the lock, while a load or a release is due: each waits for the computations that run now."""

        def may_compute() -> bool:
            self._free_unused()
            return not (self._is_loading or self._unused)

        if not may_compute():
            self._held_up += 1
            self._lock.wait_for(may_compute)
            self._held_up -= 1
            self._lock.notify_all()

    @contextmanager
    def _nothing_computed(self) -> Iterator[None]:
        """Run the block while no context computes, after the computations that earlier blocks have held up."""
        with self._lock:
            self._lock.wait_for(lambda: not (self._is_loading or self._held_up))
            self._is_loading = True
            try:
                self._lock.wait_for(lambda: not self._computing)
                yield
            finally:
                self._is_loading = False
                self._lock.notify_all()

    def _activate(self, context: Any, adapters: AdapterSet) -> None:
        every = (*self._always, *adapters)
        pointers = (ctypes.c_void_p * len(every))(*(adapter.pointer for adapter, _ in every))
        scales = (ctypes.c_float * len(every))(*(scale for _, scale in every))
        array = ctypes.cast(pointers, ctypes.POINTER(llama_cpp.llama_adapter_lora_p_ctypes))
        llama_cpp.llama_set_adapters_lora(context, array, len(every), scales)  # the same again costs nothing
        self._active[_address(context)] = frozenset(adapter.pointer for adapter, _ in adapters)

    def _free_unused(self) -> None:
        while self._unused and not self._computing and not self._is_closed:
            pointer = self._unused.popleft()
            for context, active in list(self._active.items()):
                if pointer in active:
                    llama_cpp.llama_synchronize(context)  # a GPU may still compute
                    self._activate(context, ())
            llama_cpp.llama_adapter_lora_free(ctypes.cast(pointer, llama_cpp.llama_adapter_lora_p_ctypes))


def _read_through(path: Path) -> None:
    """Read a file, so that the system has it in memory while computations wait for it to be loaded."""
    with path.open("rb") as file:
        while file.read(_PIECE_BYTES):
            pass


def _address(pointer: Any) -> int:
    """Return an opaque pointer of llama.cpp as a number."""
    address = pointer if isinstance(pointer, int) else ctypes.cast(pointer, ctypes.c_void_p).value
    assert address is not None
    return address
