"""`setup_params.convert` and `setup_params.migrate`."""

import pytest

from app.errors import ConfigError
from workers.models.ggml.options import ConversionOptions, conversion_options


@pytest.mark.parametrize("setup_params", [{}, {"convert": False}, {"convert": None, "migrate": False}])
def test_nothing_is_converted_unless_it_is_asked_for(setup_params: dict[str, object]) -> None:
    assert conversion_options(setup_params) is None


@pytest.mark.parametrize(
    "setup_params",
    [{"convert": True}, {"migrate": True, "convert": False}, {"convert": {}}, {"convert": {"eps": None}}],
)
def test_both_keys_mean_the_same(setup_params: dict[str, object]) -> None:
    assert conversion_options(setup_params) == ConversionOptions()


def test_what_a_file_lacks_may_be_given_under_either_key() -> None:
    given = {"eps": 1e-5, "n_ctx": 4096, "n_gqa": 8}
    for key in ("convert", "migrate"):
        assert conversion_options({key: given}) == ConversionOptions(eps=1e-5, n_ctx=4096, n_gqa=8)


@pytest.mark.parametrize(
    ("convert", "reason"),
    [
        ("yes", "must be true, false or a mapping"),
        (1, "must be true, false or a mapping"),
        ({"epsilon": 1e-5}, "convert.epsilon is unknown: did you mean eps?|known are eps"),
        ({"eps": 0}, "convert.eps must be a number above 0"),
        ({"eps": float("nan")}, "convert.eps must be a number above 0"),
        ({"eps": "1e-5"}, "convert.eps must be a number above 0"),
        ({"n_ctx": 0}, "convert.n_ctx must be a whole number from 1"),
        ({"n_ctx": 2**31}, "convert.n_ctx must be a whole number from 1"),
        ({"n_gqa": True}, "convert.n_gqa must be a whole number from 1"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(convert: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        conversion_options({"convert": convert})
