"""Tokenizes long texts with a fast tokenizer: the program of a child process (`child_process`)."""

from tokenizers import Tokenizer

from app.jobs.packed_tokens import pack
from workers.engines.shared.child_program import Message, serve


class FastTokenizer:
    """First message: `tokenizer`, as its JSON. Then texts, one for each message."""

    def handle(self, message: Message) -> Message:
        if "tokenizer" in message:
            self._tokenizer = Tokenizer.from_str(message["tokenizer"])
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            return {}
        return {"tokens": pack(self._tokenizer.encode(message["text"], add_special_tokens=message["add_special"]).ids)}


if __name__ == "__main__":
    serve(FastTokenizer().handle)
