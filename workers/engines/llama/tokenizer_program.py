"""Tokenizes long texts with a GGUF's vocabulary: the program of a child process (`child_process`).

llama.cpp takes time with the square of the number of special tokens in a text (`special_split`), and of equal letters
in some vocabularies; its regular expressions overflow the stack in others.
"""

import threading

import llama_cpp

from app.jobs.packed_tokens import pack
from workers.engines.llama.library import library_log
from workers.engines.llama.special_split import pieces
from workers.engines.llama.vocabulary import LlamaVocabulary
from workers.engines.shared.child_program import Message, Rejected, serve

STACK_BYTES = 256 * 1024 * 1024  # 8 MB are too few for 20,000 letters, see above


class Tokenizer:
    """First message: `path`. Then texts, one for each message, of `most` tokens at most."""

    def handle(self, message: Message) -> Message:
        if "path" in message:
            self._load(message["path"])
            return {}
        text, most = message["text"].encode("utf-8", "replace"), message["most"]
        starts = self._split.starts(text)
        if most is not None and len(starts) > most:
            return {"at_least": len(starts)}
        parts = pieces(text, starts)
        return {"tokens": pack(self._vocabulary.tokenize_pieces(parts, add_special=message["add_special"]))}

    def _load(self, path: str) -> None:
        library_log()
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise Rejected("the file of the model is no longer there")
        self._vocabulary = LlamaVocabulary(self._model)
        self._split = self._vocabulary.special_split()


def main() -> None:
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=serve, args=[Tokenizer().handle])
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
