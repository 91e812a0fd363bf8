import pytest

from app.api.openai.logprobs import CompletionLogprobs, chat_logprobs, mean_logprob, token_bytes
from app.jobs.job import TokenLogprob

HALF, OTHER_HALF = "bytes:\\xf0\\x9f", "bytes:\\x98\\x80"


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (" the", b" the"),
        ("日", "日".encode()),
        (HALF, b"\xf0\x9f"),
        ("bytes: and more", b"bytes: and more"),
        ("bytes:", b""),
    ],
)
def test_a_token_has_its_bytes_even_when_it_is_a_part_of_a_character(token: str, expected: bytes) -> None:
    assert token_bytes(token) == expected


def test_the_tokens_of_a_chat_have_their_alternatives_beside_them() -> None:
    logprobs = chat_logprobs([TokenLogprob(token="a", logprob=-0.5, top={"a": -0.5, HALF: -1.5})])
    assert logprobs["content"] == [
        {
            "token": "a",
            "logprob": -0.5,
            "bytes": [97],
            "top_logprobs": [
                {"token": "a", "logprob": -0.5, "bytes": [97]},
                {"token": HALF, "logprob": -1.5, "bytes": [0xF0, 0x9F]},
            ],
        }
    ]


def test_offsets_count_characters_and_continue_from_piece_to_piece() -> None:
    lists = CompletionLogprobs()
    first = lists.take(
        [TokenLogprob(token="ab", logprob=None), TokenLogprob(token=HALF, logprob=-1.0, top={"x": -1.0})]
    )
    second = lists.take([TokenLogprob(token=OTHER_HALF, logprob=-2.0), TokenLogprob(token="c", logprob=-3.0)])
    assert first["text_offset"] == [0, 2] and second["text_offset"] == [2, 3]
    assert (first["token_logprobs"], first["top_logprobs"]) == ([None, -1.0], [None, {"x": -1.0}])


def test_the_mean_leaves_out_what_nothing_predicts() -> None:
    assert mean_logprob([TokenLogprob(token="a", logprob=None), TokenLogprob(token="b", logprob=-2.0)]) == -2.0
    assert mean_logprob([]) == float("-inf")
