"""Chooses the next tokens of a step's sequences from its logits."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workers.engines.base import Chunk, Sampled
from workers.engines.llama.context import Logits
from workers.engines.llama.logprobs import Row, token_logprobs
from workers.engines.llama.prompts import SequenceState
from workers.engines.llama.vocabulary import LlamaVocabulary
from workers.engines.shared.logprobs import explains_prompt, prompt_logprobs


def wants_logits_of(chunk: Chunk) -> list[bool]:
    """For each token: are its logits needed, to choose what follows it or to explain the prompt?"""
    if explains_prompt(chunk):
        return [True] * len(chunk.tokens)
    choosing = 1 + chunk.drafted
    return [False] * (len(chunk.tokens) - choosing) + [chunk.samples] * choosing


def choose_tokens(chunks: Sequence[Chunk], logits: Logits, context: Any, vocabulary: LlamaVocabulary) -> list[Sampled]:
    """Return what each chunk that samples has chosen.

    Args:
        logits: `[tokens that want logits, vocabulary]`; choosing edits them.
        context: llama.cpp's pointer to the context that computed them.
    """
    sampled = []
    batch_row = output_row = 0
    for chunk in chunks:
        count = len(chunk.tokens)
        batch_row += count
        wanted = wants_logits_of(chunk).count(True)
        rows = logits[output_row : output_row + wanted]
        output_row += wanted
        if explains_prompt(chunk):
            state: SequenceState = chunk.prompt.state
            state.prompt_logprobs += prompt_logprobs(chunk, rows, vocabulary, token_logprobs)
        if chunk.samples:
            choosing = 1 + chunk.drafted
            sampled.append(_next_tokens(chunk, batch_row - choosing, rows[-choosing:], context, vocabulary))
    return sampled


def _next_tokens(chunk: Chunk, batch_row: int, rows: Logits, context: Any, vocabulary: LlamaVocabulary) -> Sampled:
    """Choose behind the last token, and behind each guess that holds. rows: the logits of these tokens."""
    first = _next_token(chunk, batch_row, rows[0], chunk.generated, context, vocabulary)
    if not chunk.drafted or not first.confirms(chunk.draft[0]):
        return first
    generated, accepted = [*chunk.generated, first.token], list[Sampled]()
    for number, guess in enumerate([*chunk.draft[1:], None], 1):
        accepted.append(_next_token(chunk, batch_row + number, rows[number], generated, context, vocabulary))
        if guess is None or not accepted[-1].confirms(guess):
            break
        generated.append(guess)
    return replace(first, accepted=accepted)


def _next_token(
    chunk: Chunk, batch_row: int, row: Row, generated: Sequence[int], context: Any, vocabulary: LlamaVocabulary
) -> Sampled:
    state: SequenceState = chunk.prompt.state
    rivals = chunk.prompt.sampling.logprobs
    # Choosing edits the row, and log-probabilities are of the model's own logits.
    untouched = None if rivals is None else row.copy()
    try:
        token = state.sampler.choose(context, batch_row, row, chunk.prompt.tokens, generated)
    except Exception as error:  # of this row's grammar; the other rows continue
        return Sampled(token=0, piece=b"", error=error)
    logprobs = None
    if untouched is not None:
        (logprobs,) = token_logprobs([untouched], [token], rivals or 0, vocabulary)
    return Sampled(
        token=token,
        piece=vocabulary.piece(token),
        is_end_token=state.sampler.ends(token),
        logprobs=logprobs,
        prompt_logprobs=[] if chunk.generated else state.prompt_logprobs,
    )
