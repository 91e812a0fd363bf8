"""Attention over a batch without padding equals the attention of each sequence by itself."""

import pytest
import torch
from torch import Tensor

from workers.engines.transformers.forward.ragged import BLOCK, RaggedBatches, Row

SLOTS, CELLS, DIM = 8, 3 * BLOCK, 16
ROWS = [
    Row(6, range(2 * BLOCK + 5), 30),
    Row(1, [3], 40),
    Row(5, [4], 0),
    Row(2, [5], 100),
    Row(0, range(7), 0, every_logit=True),
]


def attention_of_one(query: Tensor, keys: Tensor, values: Tensor, position: int, window: int | None) -> Tensor:
    """Attention of one sequence from the definition, by head and token. query: `[tokens, heads, dim]`."""
    output = torch.empty_like(query)
    shared = query.shape[1] // keys.shape[0]
    for token in range(len(query)):
        end = position + token + 1
        start = 0 if window is None else max(0, end - window)
        for head in range(query.shape[1]):
            seen_keys, seen_values = keys[head // shared, start:end], values[head // shared, start:end]
            weights = ((seen_keys @ query[token, head]) * DIM**-0.5).softmax(-1)
            output[token, head] = weights @ seen_values
    return output


@pytest.mark.parametrize("window", [None, 20, CELLS])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_each_row_attends_to_its_own_slot_up_to_its_own_token(key_heads: int, window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(SLOTS, key_heads, CELLS + 1, DIM, generator=generator) for _ in range(2))
    batch = RaggedBatches(CELLS, window, dtype=torch.float32, device=torch.device("cpu")).of(ROWS)
    query = torch.randn(len(batch.ids), 4, DIM, generator=generator)
    output = batch.attend(query, keys, values, DIM**-0.5).view(query.shape)
    for row in ROWS:
        mine = (batch.slots == row.slot).nonzero()[:, 0]
        assert batch.ids[mine].tolist() == list(row.tokens)
        assert batch.positions[mine].tolist() == list(range(row.position, row.position + len(row.tokens)))
        expected = attention_of_one(query[mine], keys[row.slot], values[row.slot], row.position, window)
        torch.testing.assert_close(output[mine], expected, rtol=1e-4, atol=1e-5)


def test_neighbours_of_one_token_attend_together_and_rows_keep_their_order() -> None:
    batch = RaggedBatches(CELLS, None, dtype=torch.float32, device=torch.device("cpu")).of(ROWS)
    assert [run.slots for run in batch.runs] == [slice(1, 3), slice(5, 6)]
    assert [batch.ids[row].tolist() for row in batch.rows] == [list(row.tokens) for row in ROWS]


def test_the_last_layer_computes_only_the_tokens_whose_logits_are_wanted() -> None:
    batches = RaggedBatches(CELLS, None, dtype=torch.float32, device=torch.device("cpu"))
    batch = batches.of(ROWS)
    assert batch.last is not None and batch.kept is not None
    assert [batch.last.ids[row].tolist() for row in batch.last.rows] == [[2 * BLOCK + 4], [3], [4], [5], [*range(7)]]
    for name in ("ids", "slots", "positions"):
        assert torch.equal(getattr(batch.last, name), getattr(batch, name)[batch.kept])
    assert batches.of(ROWS[1:]).last is None, "the logits of all tokens are wanted"
