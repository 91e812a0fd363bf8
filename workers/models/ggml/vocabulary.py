"""The vocabulary of an old file as SentencePiece and GGUF write it."""

from dataclasses import dataclass

from gguf import TokenType

from app.errors import ModelUnavailable
from workers.models.ggml.formats import FETCH_ANOTHER
from workers.models.ggml.reader import OldModel, Token

UNKNOWN, BEGIN, END = range(3)
_FIRST_BYTE, _BYTES = 3, 256
_FIRST_WORD = _FIRST_BYTE + _BYTES
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}".encode()


@dataclass(frozen=True, slots=True)
class NewVocabulary:
    """Of each token: its text, type and score."""

    texts: list[bytes]
    types: list[TokenType]
    scores: list[float]


def new_vocabulary(model: OldModel) -> NewVocabulary:
    """Return the model's vocabulary as GGUF has it.

    Raises:
        ModelUnavailable: it is not that of a LLaMA; llama.cpp would end the process over it.
    """
    pairs = [_text_and_type(number, token.text) for number, token in enumerate(model.tokens)]
    texts, types = [text for text, _ in pairs], [kind for _, kind in pairs]
    bytes_known = types[_FIRST_BYTE:_FIRST_WORD].count(TokenType.BYTE)
    if bytes_known < _BYTES or len(set(texts)) < len(texts):
        reason = "two of its tokens are the same" if bytes_known == _BYTES else "its vocabulary lacks bytes"
        raise ModelUnavailable(
            f"{model.path} is a {model.format.label} that is damaged or not of a LLaMA ({reason}): download it again, "
            f"or {FETCH_ANOTHER}"
        )
    return NewVocabulary(texts, types, [_score(number, token) for number, token in enumerate(model.tokens)])


def _text_and_type(number: int, text: bytes) -> tuple[bytes, TokenType]:
    """Old files hold the text that a token stands for, in which a special token is empty."""
    if number <= END:
        return (b"<unk>", b"<s>", b"</s>")[number], TokenType.UNKNOWN if number == UNKNOWN else TokenType.CONTROL
    byte = number - _FIRST_BYTE
    if byte < _BYTES and text in (bytes([byte]), _REPLACEMENT):  # the oldest files have no bytes that are no character
        return f"<0x{byte:02X}>".encode(), TokenType.BYTE
    if not text:
        return f"<empty_{number}>".encode(), TokenType.CONTROL
    return text.replace(b" ", _SPACE), TokenType.NORMAL


def _score(number: int, token: Token) -> float:
    """Return the token's own score, else the one in LLaMA's vocabulary: it falls from merge to merge."""
    return token.score if token.score is not None else -float(max(0, number - _FIRST_WORD))
