"""The limit: llama_decode over N sequences in a plain loop, greedy, prefill counted. A process of its own.

Reads orders (JSON, one a line) from standard input and answers each with a line of JSON: the model is loaded once, so
that its rounds can alternate with those of a service.

- `{"prompts": [...], "new_tokens": N or [N, ...], "shares_prefix": false}` runs all prompts (texts or token ids)
  together: `{"seconds": ..., "prompts": [[...]], "tokens": [[...]], "texts": [...]}`.
- `{"lead_behind": [token, ...]}`: by how much the likeliest next token leads: `{"lead": logits}`.
- `{"text_of": [token, ...]}`: `{"text": ...}`.
"""

import ctypes
import json
import os
import sys
import time
from typing import Any

import llama_cpp as llama
import numpy as np

from workers.batching.prefix_cache import common_prefix

BATCH = 512


class Bare:
    def __init__(self, path: str, sequences: int, cells: int) -> None:
        llama.llama_log_set(_SILENT, None)
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.vocabulary_size = llama.llama_vocab_n_tokens(self.vocab)
        self.ends = [token for token in range(self.vocabulary_size) if llama.llama_vocab_is_eog(self.vocab, token)]
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = sequences * cells, sequences, False
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
        self.context = llama.llama_init_from_model(self.model, params)
        self.memory = llama.llama_get_memory(self.context)
        self.batch = llama.llama_batch_init(BATCH, 0, 1)

    def tokenize(self, prompt: str | list[int]) -> list[int]:
        if not isinstance(prompt, str):
            return prompt
        raw = prompt.encode()
        buffer = (llama.llama_token * 4096)()
        return list(buffer[: llama.llama_tokenize(self.vocab, raw, len(raw), buffer, 4096, True, True)])

    def text(self, tokens: list[int]) -> str:
        ids, buffer = (llama.llama_token * len(tokens))(*tokens), ctypes.create_string_buffer(64 * len(tokens) + 64)
        size = llama.llama_detokenize(self.vocab, ids, len(tokens), buffer, len(buffer), False, False)
        return buffer.raw[:size].decode("utf-8", "replace")

    def run(self, prompts: list[list[int]], new_tokens: list[int], shared: int = 0) -> tuple[float, list[list[int]]]:
        """Return the seconds for all prompts together, and their new tokens, of which none is an end token.

        shared: number of tokens that all prompts begin with: computed once, and copied to every sequence.
        """
        llama.llama_memory_clear(self.memory, True)
        started = time.perf_counter()
        if shared:
            self._prefill([(0, prompts[0][:shared], 0)], samples=False)
            for slot in range(1, len(prompts)):
                llama.llama_memory_seq_cp(self.memory, 0, slot, -1, -1)
        firsts = self._prefill([(slot, tokens[shared:], shared) for slot, tokens in enumerate(prompts)])
        chosen = [[token] for token in firsts]
        for step in range(1, max(new_tokens)):
            active = [slot for slot, most in enumerate(new_tokens) if step < most]
            self.batch.n_tokens = 0
            for slot in active:
                self._put(slot, chosen[slot][-1], len(prompts[slot]) + step - 1, wants_logits=True)
            for slot, token in zip(active, self._decode(range(len(active))), strict=True):
                chosen[slot].append(token)
        return time.perf_counter() - started, chosen

    def lead_behind(self, tokens: list[int]) -> float:
        llama.llama_memory_clear(self.memory, True)
        self._prefill([(0, tokens[:-1], 0)], samples=False)
        self.batch.n_tokens = 0
        self._put(0, tokens[-1], len(tokens) - 1, wants_logits=True)
        self._decode([])
        second, first = np.partition(self._logits(0), -2)[-2:]
        return float(first - second)

    def _prefill(self, pieces: list[tuple[int, list[int], int]], *, samples: bool = True) -> list[int]:
        """Return the next token of each (slot, tokens, first position). Prompts may be cut anywhere to fill batches."""
        chosen: list[int] = []
        rows: list[int] = []
        self.batch.n_tokens = 0
        for slot, tokens, start in pieces:
            for position, token in enumerate(tokens, start):
                if self.batch.n_tokens == BATCH:
                    chosen += self._decode(rows)
                    self.batch.n_tokens, rows = 0, []
                ends = samples and position == start + len(tokens) - 1
                self._put(slot, token, position, wants_logits=ends)
                if ends:
                    rows.append(self.batch.n_tokens - 1)
        return chosen + (self._decode(rows) if self.batch.n_tokens else [])

    def _put(self, slot: int, token: int, position: int, *, wants_logits: bool) -> None:
        batch, row = self.batch, self.batch.n_tokens
        batch.token[row], batch.pos[row], batch.n_seq_id[row] = token, position, 1
        batch.seq_id[row][0], batch.logits[row] = slot, wants_logits
        batch.n_tokens += 1

    def _decode(self, rows: Any) -> list[int]:
        assert llama.llama_decode(self.context, self.batch) == 0
        return [int(np.argmax(self._logits(row))) for row in rows]

    def _logits(self, row: int) -> Any:
        pointer = llama.llama_get_logits_ith(self.context, row)
        logits = np.ctypeslib.as_array(pointer, shape=(self.vocabulary_size,))
        logits[self.ends] = -np.inf
        return logits


_SILENT = llama.llama_log_callback(lambda level, text, data: None)


def main() -> None:
    bare = Bare(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(bare, json.loads(line))), flush=True)


def _answer(bare: Bare, order: dict[str, Any]) -> dict[str, Any]:
    if "lead_behind" in order:
        return {"lead": bare.lead_behind(order["lead_behind"])}
    if "text_of" in order:
        return {"text": bare.text(order["text_of"])}
    prompts = [bare.tokenize(prompt) for prompt in order["prompts"]]
    new_tokens = order["new_tokens"]
    lengths = new_tokens if isinstance(new_tokens, list) else [new_tokens] * len(prompts)
    shared = min(common_prefix(prompts[0], each) for each in prompts) if order.get("shares_prefix") else 0
    seconds, tokens = bare.run(prompts, lengths, min([shared, *(len(each) - 1 for each in prompts)]))
    return {"seconds": seconds, "prompts": prompts, "tokens": tokens, "texts": [bare.text(each) for each in tokens]}


if __name__ == "__main__":
    main()
