"""The table at the end of a run."""

from tests.bench.peers.summary import Ratios, summary

BEST, DEFAULT, ONE_STREAM = "llama-server-best", "llama-server-default", "bare loop, 1 stream"


def ratios(one: list[float], eight: list[float]) -> Ratios:
    return {("1", BEST): one, ("8", BEST): eight}


def test_the_file_with_the_lowest_median_comes_first_and_medians_below_1_are_bold() -> None:
    table = summary(
        {
            "good.gguf": ratios([1.2, 1.1, 1.3], [1.0, 1.0, 0.9]),
            "bad.gguf": ratios([0.96, 0.5, 1.4], [1.1, 1.1, 1.1]),
            "worse.gguf": ratios([1.5, 1.5, 1.5], [0.85, 0.8, 0.9]),
        },
        "900 tokens",
    )
    assert table.splitlines() == [
        "| file | 1 client | 8 |",
        "| --- | --- | --- |",
        "| worse.gguf | 1.500 [1.500-1.500] | **0.850** [0.800-0.900] |",
        "| bad.gguf | **0.960** [0.500-1.400] | 1.100 [1.100-1.100] |",
        "| good.gguf | 1.200 [1.100-1.300] | 1.000 [0.900-1.000] |",
    ]


def test_the_columns_are_those_that_were_measured_for_any_file() -> None:
    table = summary(
        {
            "a.gguf": {("long", BEST): [1.0], ("8", DEFAULT): [2.0], ("1", ONE_STREAM): [0.9], ("mixed", BEST): [0.1]},
            "b.gguf": {("long", BEST): [0.8], ("8", "batched-bench"): [0.1]},
        },
        "3,600 bytes",
    )
    assert table.splitlines() == [
        "| file | 8 \N{MULTIPLICATION SIGN} 3,600 bytes | 8, its defaults | 1 client, bare loop of one stream |",
        "| --- | --- | --- | --- |",
        "| b.gguf | **0.800** [0.800-0.800] |  |  |",
        "| a.gguf | 1.000 [1.000-1.000] | 2.000 [2.000-2.000] | **0.900** [0.900-0.900] |",
    ]


def test_without_a_measured_column_there_is_no_table() -> None:
    assert summary({"a.gguf": {("chat", BEST): [1.0]}, "b.gguf": {}}, "900 tokens") == ""
