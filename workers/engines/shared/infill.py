"""A gap between a prompt and a suffix as tokens; the same for every family."""

from typing import Protocol

from app.errors import UnsupportedParameter


class InfillVocabulary(Protocol):
    """infill: the tokens that announce prefix, suffix and gap; None where the model was not trained to fill in."""

    infill: tuple[int, int, int] | None

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]: ...


def infill_tokens(vocabulary: InfillVocabulary, text: str, suffix: str) -> list[int]:
    """Prefix, suffix, then the place to fill (the order llama.cpp's server uses). Raises UnsupportedParameter."""
    if vocabulary.infill is None:
        raise UnsupportedParameter(
            "this model cannot fill in between a prompt and a suffix: leave suffix out or use a model trained for it",
            errors={"params.suffix": ["this model has no infill tokens"]},
        )
    prefix_token, suffix_token, middle_token = vocabulary.infill
    before = vocabulary.tokenize(text, add_special=False)
    after = vocabulary.tokenize(suffix, add_special=False)
    start = vocabulary.tokenize("")  # BOS, where the model wants one
    return [*start, prefix_token, *before, suffix_token, *after, middle_token]
