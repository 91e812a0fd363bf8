"""Which rows share a forward pass, and that gaps between slots change nothing."""

import pytest
import torch

from tests.workers.engines.transformers.driver import make_engine
from tests.workers.engines.transformers.models import tiny
from workers.engines.transformers.forward.ragged import Row
from workers.engines.transformers.forward.slot_model import SlotModel, _groups, _without_gaps


def slots_of(architecture: str) -> SlotModel:
    slots = make_engine(tiny(architecture), slots=8)._slots
    assert slots is not None
    return slots


def row(slot: int, tokens: int, position: int = 0, *, every: bool = False) -> Row:
    return Row(slot, range(1, tokens + 1), position, every)


def test_rows_of_one_token_share_a_pass_and_prompts_of_about_one_length_another() -> None:
    rows = [row(0, 1), row(1, 30), row(2, 1), row(3, 100), row(4, 28), row(5, 7, every=True), row(6, 33)]
    assert list(_groups(rows)) == [[0, 2], [5], [1, 4, 6], [3]]
    rows = [row(0, 9, every=True), row(1, 1), row(2, 1, every=True), row(3, 9, every=True)]
    assert list(_groups(rows)) == [[1], [2], [0, 3]], (
        "rows that want every logit share a pass with rows of their length"
    )


def test_a_small_gap_is_filled_and_a_wide_one_is_not() -> None:
    filled, wanted = _without_gaps([row(2, 1), row(4, 1), row(5, 1)])
    assert ([each.slot for each in filled], wanted) == ([2, 3, 4, 5], [0, 2, 3])
    filled, wanted = _without_gaps([row(0, 1), row(7, 1)])
    assert ([each.slot for each in filled], wanted) == ([0, 7], [0, 1])


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
def test_the_cells_of_a_gap_are_not_changed(architecture: str) -> None:
    slots = slots_of(architecture)
    slots.run([row(slot, 5) for slot in range(3)])
    before = [part[1].clone() for part in slots.cache._parts()]
    (first, last) = slots.run([row(0, 1, 5), row(2, 1, 5)])
    spare = slots.cache.spare_cell
    after = [part[1] for part in slots.cache._parts()]
    assert all(torch.equal(old[:, :spare], new[:, :spare]) for old, new in zip(before, after, strict=True))
    assert torch.allclose(first, last, atol=1e-5), "the same tokens have the same logits in every slot"


@pytest.mark.parametrize("architecture", ["gemma2", "mistral"])
def test_slots_far_apart_have_the_logits_of_neighbours(architecture: str) -> None:
    slots = slots_of(architecture)
    near = slots.run([row(slot, 20) for slot in (0, 1)])
    far = slots.run([row(slot, 20) for slot in (2, 7)])
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(near, far, strict=True))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_every_logit_is_given_where_it_is_asked_for(architecture: str) -> None:
    slots = slots_of(architecture)
    (all_of_them,) = slots.run([row(0, 9, every=True)])
    (last,) = slots.run([row(1, 9)])
    assert (len(all_of_them), len(last)) == (9, 1)
    assert torch.allclose(all_of_them[-1:], last, atol=1e-5)
    together = slots.run([row(2, 9, every=True), row(4, 9, every=True)])
    assert all(torch.allclose(each, all_of_them, atol=1e-5) for each in together)


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
def test_a_copy_continues_like_its_original_and_a_cut_forgets_the_rest(architecture: str) -> None:
    slots = slots_of(architecture)
    slots.run([row(0, 12)])
    slots.copy(0, 3, 8)
    assert slots.used_cells() == 20
    slots.cut(0, 8)
    assert slots.used_cells() == 16
    original, copied = slots.run([row(0, 4, 8), row(3, 4, 8)])
    assert torch.allclose(original, copied, atol=1e-5)
    assert slots.ids[3, :12].tolist() == [*range(1, 9), *range(1, 5)]
