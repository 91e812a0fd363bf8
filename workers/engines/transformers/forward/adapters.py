"""LoRA adapters over a batch: each row gets the changes of its own adapters, computed beside the layers as they are.

A layer that some adapter changes has a hook, which adds to the layer's output what the adapters of the pass make of its
input. So layers may be fused, packed or quantized, and rows with different adapters share all other multiplications.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workers.engines.transformers.forward.fused_projections import Part

_STACKS = 4  # sets of adapters that a module keeps side by side: passes alternate between few


@dataclass(frozen=True, slots=True)
class Change:
    """What an adapter does to a layer: `input @ down.T @ up.T`. down: `[rank, inputs]`; up: `[outputs, rank]`."""

    down: Tensor
    up: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LoadedAdapter:
    """changes: by the name of the layer."""

    changes: Mapping[str, Change]


AdapterSet = tuple[tuple[LoadedAdapter, float], ...]
"""Adapters and their scales."""

Layout = tuple[tuple[int, int], ...]
"""Of the inner values of a stack: the place of an adapter among those of the pass, and how many values are its own."""


class AdapterPlan:
    """Which rows of a forward pass have which adapters.

    A layer's input has the rows that its number of rows says: the last layer may have fewer.
    """

    def __init__(
        self, adapters: Sequence[LoadedAdapter], scales: Mapping[int, Tensor] | Tensor, *, is_flat: bool
    ) -> None:
        """scales: `[rows, adapters]`, by the number of rows; or the same `[1, adapters]` for any number.

        is_flat: rows are single tokens; else the first dimension of the input counts them.
        """
        self.adapters = tuple(adapters)
        self._scales = scales
        self._is_flat = is_flat
        self._weights: dict[tuple[Layout, int], Tensor] = {}

    @classmethod
    def everywhere(cls, adapters: AdapterSet) -> "AdapterPlan | None":
        if not adapters:
            return None
        return cls([adapter for adapter, _ in adapters], torch.tensor([[scale for _, scale in adapters]]), is_flat=True)

    @classmethod
    def of_rows(
        cls, batches: Sequence[Sequence[AdapterSet]], device: torch.device, *, is_flat: bool
    ) -> "AdapterPlan | None":
        """batches: the adapters of each row, for each number of rows that there is. None: no row has any."""
        distinct = sorted({adapter for rows in batches for row in rows for adapter, _ in row}, key=id)
        if not distinct:
            return None
        places = {adapter: place for place, adapter in enumerate(distinct)}
        scales = {}
        for rows in batches:
            table = [[0.0] * len(distinct) for _ in rows]
            for scale_of, row in zip(table, rows, strict=True):
                for adapter, scale in row:
                    scale_of[places[adapter]] = scale
            scales[len(rows)] = torch.tensor(table, device=device)
        return cls(distinct, scales, is_flat=is_flat)

    def weights(self, layout: "Layout", states: Tensor) -> Tensor:
        """Return what the inner values of a stack are multiplied by, in the shape of the rows of `states`."""
        rows = states.numel() // states.shape[-1] if self._is_flat else len(states)
        key = layout, rows
        if key not in self._weights:
            scales = self._scales if isinstance(self._scales, Tensor) else self._scales[rows]
            owners = [place for place, width in layout for _ in range(width)]
            weights = scales.to(states)[:, owners]
            self._weights[key] = weights if self._is_flat else weights[:, None]
        return self._weights[key]


class _Running(threading.local):
    """The plan of the forward pass that runs in this thread."""

    plan: AdapterPlan | None = None


_running = _Running()


@contextmanager
def running(plan: AdapterPlan | None) -> Iterator[None]:
    """Apply a plan to the forward passes of this thread."""
    before, _running.plan = _running.plan, plan
    try:
        yield
    finally:
        _running.plan = before


@dataclass(frozen=True, slots=True)
class _Stack:
    """The changes of several adapters to one module, side by side. down: `[inputs, inner]`; up: `[inner, outputs]`."""

    down: Tensor
    up: Tensor
    layout: Layout


class AdapterHook:
    """Of one module: adds what the adapters of the pass change. Two multiplications for all of them.

    targets: the layers that it computes, each with its part of the output.
    """

    def __init__(self) -> None:
        self.targets: dict[str, slice] = {}
        self._stacks: dict[tuple[LoadedAdapter, ...], _Stack | None] = {}

    def __call__(self, _module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        plan = _running.plan
        if plan is None:
            return output
        states = inputs[0]
        stack = self._stack(plan.adapters, output)
        if stack is not None:
            inner = (states @ stack.down).mul_(plan.weights(stack.layout, states))
            output += inner @ stack.up
        return output

    def forget(self) -> None:
        """Forget what was put side by side: an adapter is loaded or unloaded."""
        self._stacks = {}

    def _stack(self, adapters: tuple[LoadedAdapter, ...], output: Tensor) -> _Stack | None:
        stacks = self._stacks  # passes of other threads change it too
        try:
            return stacks[adapters]
        except KeyError:
            made = self._stacked(adapters, output)
        if len(stacks) >= _STACKS:
            stacks.clear()
        stacks[adapters] = made
        return made

    def _stacked(self, adapters: tuple[LoadedAdapter, ...], output: Tensor) -> _Stack | None:
        found = [
            (place, change, part)
            for place, adapter in enumerate(adapters)
            for name, part in self.targets.items()
            if (change := adapter.changes.get(name)) is not None
        ]
        if not found:
            return None
        layout = tuple((place, len(change.down)) for place, change, _ in found)
        down = torch.cat([change.down for _, change, _ in found]).T.contiguous().to(output)
        up = torch.zeros((down.shape[1], output.shape[-1]), dtype=output.dtype, device=output.device)
        start = 0
        for _, change, part in found:
            up[start : start + len(change.down), part] = change.up.T
            start += len(change.down)
        return _Stack(down, up, layout)


def place_of(model: nn.Module, name: str) -> tuple[nn.Module, slice]:
    """Return the module that computes a layer, and the layer's part of its output. Raises AttributeError."""
    module = model.get_submodule(name)
    return module.place if isinstance(module, Part) else (module, slice(None))
