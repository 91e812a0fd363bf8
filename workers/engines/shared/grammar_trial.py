"""Compiles grammars as a trial: the program of a child process (`child_process`), which may be ended."""

from llguidance import LLMatcher, LLTokenizer

from workers.engines.shared.child_program import Limits, Message, Rejected, serve

LIMITS = Limits(
    cpu_seconds=1.0,  # a schema of 900 properties, each with a format, takes 0.3 s
    memory_bytes=512 * 1024 * 1024,
    wait_seconds=15.0,  # the limit of CPU time ends it long before, unless the machine is overloaded
    niceness=15,  # the cores are for decoding
)
_TOKENIZER = LLTokenizer("byte")


def handle(message: Message) -> Message:
    """The first message is empty, each other one has a `grammar`, whose errors the parent finds itself."""
    if "grammar" in message:
        try:
            LLMatcher(_TOKENIZER, message["grammar"], log_level=0)
        except BaseException as error:  # a panic of the library is no `Exception`
            raise Rejected("llguidance fails at it") from error
    return {}


if __name__ == "__main__":
    serve(handle)
