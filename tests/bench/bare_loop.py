"""The limit: llama_decode over N sequences in a plain loop, greedy, prefill counted. A process of its own.

Reads lines `N TOKENS PROMPT...` (JSON) from standard input and answers each with the seconds it took: the model is
loaded once, so that its rounds can alternate with those of the service.
"""

import json
import os
import sys
import time
from typing import Any

import llama_cpp as llama
import numpy as np

from workers.batching.residents import common_prefix

BATCH = 512


class Bare:
    def __init__(self, path: str, sequences: int, cells: int) -> None:
        llama.llama_log_set(_SILENT, None)
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.vocabulary_size = llama.llama_vocab_n_tokens(self.vocab)
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = sequences * cells, sequences, False
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
        self.context = llama.llama_init_from_model(self.model, params)
        self.batch = llama.llama_batch_init(BATCH, 0, 1)

    def tokenize(self, text: str) -> list[int]:
        raw = text.encode()
        buffer = (llama.llama_token * 4096)()
        return list(buffer[: llama.llama_tokenize(self.vocab, raw, len(raw), buffer, 4096, True, True)])

    def run(self, prompts: list[list[int]], new_tokens: int, shared: int = 0) -> float:
        """Seconds for all prompts, `new_tokens` each, all sequences together.

        shared: tokens that all prompts begin with: computed once, and copied to every sequence.
        """
        memory = llama.llama_get_memory(self.context)
        llama.llama_memory_clear(memory, True)
        started = time.perf_counter()
        for start in range(0, shared, BATCH):
            self.batch.n_tokens = 0
            for position in range(start, min(shared, start + BATCH)):
                self._put(0, prompts[0][position], position, wants_logits=False)
            self._decode([])
        for slot in range(1, len(prompts) if shared else 0):
            llama.llama_memory_seq_cp(memory, 0, slot, -1, -1)
        last: list[int] = []
        pending = [(slot, tokens) for slot, tokens in enumerate(prompts)]
        while pending:  # whole prompts, as many as fit in one batch
            self.batch.n_tokens = 0
            ends = []
            while pending and self.batch.n_tokens + len(pending[0][1]) - shared <= BATCH:
                slot, tokens = pending.pop(0)
                for position, token in enumerate(tokens[shared:], shared):
                    self._put(slot, token, position, wants_logits=position == len(tokens) - 1)
                ends.append(self.batch.n_tokens - 1)
            last += self._decode(ends)
        for step in range(1, new_tokens):
            self.batch.n_tokens = 0
            for slot, tokens in enumerate(prompts):
                self._put(slot, last[slot], len(tokens) + step - 1, wants_logits=True)
            last = self._decode(list(range(len(prompts))))
        return time.perf_counter() - started

    def _put(self, slot: int, token: int, position: int, *, wants_logits: bool) -> None:
        batch, row = self.batch, self.batch.n_tokens
        batch.token[row], batch.pos[row], batch.n_seq_id[row] = token, position, 1
        batch.seq_id[row][0], batch.logits[row] = slot, wants_logits
        batch.n_tokens += 1

    def _decode(self, rows: list[int]) -> list[int]:
        assert llama.llama_decode(self.context, self.batch) == 0
        return [int(np.argmax(self._logits(row))) for row in rows]

    def _logits(self, row: int) -> Any:
        pointer = llama.llama_get_logits_ith(self.context, row)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary_size,))


_SILENT = llama.llama_log_callback(lambda level, text, data: None)


def main() -> None:
    bare = Bare(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        prompts = [bare.tokenize(text) for text in order["prompts"]]
        shared = min(common_prefix(prompts[0], each) for each in prompts) if order.get("shares_prefix") else 0
        shared = min([shared, *(len(each) - 1 for each in prompts)])
        print(bare.run(prompts, order["new_tokens"], shared), flush=True)


if __name__ == "__main__":
    main()
