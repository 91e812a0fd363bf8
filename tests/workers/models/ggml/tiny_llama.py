"""A tiny LLaMA with random weights: what its files hold, and its forward pass in numpy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

WIDTH, HEADS, HIDDEN, LAYERS = 256, 4, 512, 2
WORDS = [*" abcdefghijklmnopqrstuvwxyz", "th", "he", " t", "in", " th", "the", " the", "ing", "er"]
"""What follows the bytes in the vocabulary, the earliest merge first. "the" is never made: " th" comes before."""
SPECIAL, BYTES = 3, 256
VOCABULARY = SPECIAL + BYTES + len(WORDS)


@dataclass(frozen=True)
class TinyLlama:
    """weights: by the name in old files, (rows, columns)."""

    weights: dict[str, Floats]
    key_value_heads: int = HEADS
    epsilon: float = 5e-6

    @property
    def head_width(self) -> int:
        return WIDTH // HEADS

    def logits(self, tokens: list[int]) -> Floats:
        """Return those behind each token, (tokens, vocabulary)."""
        x = self.weights["tok_embeddings.weight"][tokens]
        for layer in range(LAYERS):
            x = x + self._attention(layer, self._norm(x, f"layers.{layer}.attention_norm"))
            x = x + self._feed_forward(layer, self._norm(x, f"layers.{layer}.ffn_norm"))
        return self._norm(x, "norm") @ self.weights["output.weight"].T

    def _norm(self, x: Floats, name: str) -> Floats:
        scale = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.epsilon)
        return np.asarray(x * scale * self.weights[f"{name}.weight"], np.float32)

    def _attention(self, layer: int, x: Floats) -> Floats:
        def heads(name: str, count: int) -> Floats:
            return (x @ self.weights[f"layers.{layer}.attention.{name}.weight"].T).reshape(len(x), count, -1)

        q, k = _rotated(heads("wq", HEADS)), _rotated(heads("wk", self.key_value_heads))
        v = heads("wv", self.key_value_heads)
        shared = HEADS // self.key_value_heads
        k, v = np.repeat(k, shared, axis=1), np.repeat(v, shared, axis=1)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(self.head_width)
        scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", shares, v).reshape(len(x), WIDTH)
        return np.asarray(mixed @ self.weights[f"layers.{layer}.attention.wo.weight"].T, np.float32)

    def _feed_forward(self, layer: int, x: Floats) -> Floats:
        w1, w2, w3 = (self.weights[f"layers.{layer}.feed_forward.w{number}.weight"] for number in (1, 2, 3))
        gate = x @ w1.T
        return np.asarray((gate / (1 + np.exp(-gate)) * (x @ w3.T)) @ w2.T, np.float32)


def _rotated(x: Floats) -> Floats:
    """Rotate neighbours (2i, 2i+1) of each head by their position."""
    positions, _, width = x.shape
    angles = np.arange(positions)[:, None] * 10_000.0 ** (-np.arange(0, width, 2) / width)
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None, :]
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape).astype(np.float32)


def shapes(key_value_heads: int = HEADS, vocabulary: int = VOCABULARY) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor, (rows, columns)."""
    of_keys = WIDTH // HEADS * key_value_heads
    made: dict[str, tuple[int, ...]] = {"tok_embeddings.weight": (vocabulary, WIDTH)}
    for layer in range(LAYERS):
        made |= {
            f"layers.{layer}.attention.wq.weight": (WIDTH, WIDTH),
            f"layers.{layer}.attention.wk.weight": (of_keys, WIDTH),
            f"layers.{layer}.attention.wv.weight": (of_keys, WIDTH),
            f"layers.{layer}.attention.wo.weight": (WIDTH, WIDTH),
            f"layers.{layer}.attention_norm.weight": (WIDTH,),
            f"layers.{layer}.feed_forward.w1.weight": (HIDDEN, WIDTH),
            f"layers.{layer}.feed_forward.w2.weight": (WIDTH, HIDDEN),
            f"layers.{layer}.feed_forward.w3.weight": (HIDDEN, WIDTH),
            f"layers.{layer}.ffn_norm.weight": (WIDTH,),
        }
    return made | {"norm.weight": (WIDTH,), "output.weight": (vocabulary, WIDTH)}


def token_texts(*, knows_bytes: bool = True) -> list[bytes]:
    """Return the vocabulary as old files hold it. The oldest have bytes from 128 on as the replacement character."""
    raw = [bytes([byte]) if byte < 128 or knows_bytes else "\ufffd".encode() for byte in range(BYTES)]
    return [" \u2047 ".encode(), b"", b"", *raw, *(word.encode() for word in WORDS)]
