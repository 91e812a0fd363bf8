"""Token ids as one string."""

import json

import pytest

from app.jobs.packed_tokens import pack, unpack


@pytest.mark.parametrize("tokens", [[], [0], [1, 2_147_483_647, 0], list(range(100_000))])
def test_packed_tokens_become_the_same_list_again(tokens: list[int]) -> None:
    packed = json.loads(json.dumps(pack(tokens)))
    assert unpack(packed) == tokens
