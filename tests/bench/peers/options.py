"""The command line of `make bench-peers`."""

import argparse
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from tests.bench.peers.contenders import LlamaCppPython, LlamaServerAtItsBest, LlamaServerByDefault
from tests.bench.peers.prompts import LONG_BYTES, GeneratedPrompts, read_lines
from tests.bench.peers.reference import BATCHED_BENCH
from tests.bench.peers.works import works
from tests.stack import SMOLLM2_FILE

SET = "set"
_FIRST_PORT = 18100
_EPILOG = f"""\
--model set:    SmolLM2 in Q4_0, Q8_0, Q4_K_M and Q6_K, made from the default model by llama.cpp's quantizer, and a
                random Llama of 1.2 billion weights in Q4_K_M. It is made once (1.2 GB).

--prompts FILE: what each workload takes from it.
  1, 8, 32, mixed, stream   a line is a prompt. When all are used up, they come again with a number in front.
  long                      lines joined to {LONG_BYTES:,} bytes, with a number in front, from a random line on.
  prefix, chat, quotes      nothing: their prompts are generated.
--seed decides which lines are used when, and how the generated prompts read; each model file gets the same.

chat runs where the file has a chat template, quotes on SmolLM2 alone. At the end there is a table of all files.
"""


def read_options() -> argparse.Namespace:
    """Read the command line, in which every named file exists. `lines` is None without `--prompts`."""
    parser = argparse.ArgumentParser(
        prog="make bench-peers",
        description="Measure this service in turn with other servers of the same model file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", type=_models, default=[SMOLLM2_FILE], metavar="FILE,...", help=f"GGUF files; {SET}: see below"
    )
    parser.add_argument(
        "--set-folder", type=Path, default=Path(sys.prefix, "peers-models"), help="where the set is kept"
    )
    parser.add_argument("--llama-server", type=_file, help="llama.cpp's llama-server; llama-batched-bench beside it")
    parser.add_argument("--llama-cpp-python", type=_file, help="folder in which its server's libraries are installed")
    parser.add_argument("--rounds", type=_from_1_to(1000), default=5)
    parser.add_argument("--seed", type=int, default=1, help="of the prompts")
    parser.add_argument("--prompts", type=_lines, dest="lines", metavar="FILE", help="a text file: see below")
    parser.add_argument("--port", type=_from_1_to(65_532), default=_FIRST_PORT, help="the first of four (%(default)s)")
    names = [work.name for work in works(GeneratedPrompts())]
    parser.add_argument("--only", type=_names(names), metavar="WORK,...", help=f"only these of {', '.join(names)}")
    others = [LlamaServerAtItsBest.name, LlamaServerByDefault.name, LlamaCppPython.name, BATCHED_BENCH]
    parser.add_argument(
        "--against",
        type=_names(others),
        metavar="NAME,...",
        help=f"only these of {', '.join(others)}, beside ours and the bare loop",
    )
    return parser.parse_args()


def _from_1_to(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {most}")
        return int(text)

    return read


def _models(text: str) -> list[Path | str]:
    return [SET if name == SET else _file(name) for name in text.split(",")]


def _file(text: str) -> Path:
    path = Path(text).resolve()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{path} does not exist")
    return path


def _lines(text: str) -> list[str]:
    try:
        return read_lines(_file(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return read
