"""Copies of the state of slots, for memory that cannot be cut: recurrent states (Mamba, RWKV), alone or beside keys.

A copy has the size of the state, whatever the length of the text. What grows with the text (the keys and values of
hybrid models) stays in the slot, where it can be cut.
"""

import ctypes
from typing import Any

import llama_cpp

from app.errors import EngineFailed

PER_SLOT = 2  # the ends of the last prompt and of the one before: the next turn of a chat, or this one once more

_STATE_ONLY = llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
_TO_THE_END = -1

State = Any  # a ctypes array, never changed


class Checkpoints:
    """The last checkpoints of each slot of a context, by the number of tokens that had been computed."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._states: dict[int, dict[int, State]] = {}

    def save(self, slot: int, tokens: int) -> None:
        """Copy the state behind the first tokens of a slot: all that it holds. The oldest copy is dropped."""
        states = self._states.setdefault(slot, {})
        states[tokens] = saved_state(self._context, slot)
        while len(states) > PER_SLOT:
            del states[min(states)]

    def longest(self, slot: int, tokens: int) -> int:
        """Return behind how many tokens, at most `tokens`, there is a checkpoint; 0: none."""
        return max((at for at in self._states.get(slot, ()) if at <= tokens), default=0)

    def restore(self, slot: int, tokens: int) -> None:
        """Return a slot to a checkpoint, and drop later ones.

        Raises:
            EngineFailed: llama.cpp rejected the state.
        """
        states = self._states[slot] = {at: state for at, state in self._states[slot].items() if at <= tokens}
        restore_state(self._context, slot, states[tokens])

    def copy(self, source: int, target: int) -> None:
        self._states[target] = dict(self._states.get(source, {}))

    def drop(self, slot: int) -> None:
        self._states.pop(slot, None)

    def clear(self) -> None:
        self._states.clear()


def saved_state(context: Any, slot: int) -> State:
    size = llama_cpp.llama_state_seq_get_size_ext(context, slot, _STATE_ONLY)
    state = (ctypes.c_uint8 * size)()
    if llama_cpp.llama_state_seq_get_data_ext(context, state, size, slot, _STATE_ONLY) != size:
        raise EngineFailed("llama.cpp did not copy the state of a slot")
    return state


def restore_state(context: Any, slot: int, state: State) -> None:
    if not llama_cpp.llama_state_seq_set_data_ext(context, state, len(state), slot, _STATE_ONLY):
        raise EngineFailed("llama.cpp rejected the copied state of a slot")
