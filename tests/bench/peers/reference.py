"""The expected texts, and the speed of llama.cpp without a server."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.peers.asking import Round
from tests.bench.peers.contenders import CELLS, CPUS, SLOTS
from tests.bench.peers.works import Request, Work
from tests.bench.throughput import BareLoop, bare_loop

BARE_LOOP, BARE_LOOP_OF_ONE, BATCHED_BENCH = "bare loop", "bare loop, 1 stream", "batched-bench"
_SHOWN_LEADS = 5


@dataclass(slots=True)
class Comparison:
    """leads: for each text that differs, the lead in logits of the bare loop's token where the two texts diverge. Some
    hundredths are rounding: a batch of another size adds up in another order.
    """

    texts: int = 0
    leads: list[float] = field(default_factory=list)

    def add(self, leads: list[float | None]) -> None:
        self.texts += len(leads)
        self.leads += [lead for lead in leads if lead is not None]

    def __str__(self) -> str:
        equal = f"{self.texts - len(self.leads)} of {self.texts} texts are the bare loop's"
        highest = ", ".join(f"{lead:.3f}" for lead in sorted(self.leads, reverse=True)[:_SHOWN_LEADS])
        return equal + (f"; the others part where its token led by {highest} logits" if highest else "")


class Reference:
    """Runs the bare loop on the same requests. seconds: of the last run."""

    def __init__(self, bare: BareLoop) -> None:
        self._bare = bare
        self.seconds = 0.0
        self._prompts: list[list[int]] = []
        self._tokens: list[list[int]] = []
        self._texts: list[str] = []

    def run(self, work: Work, requests: list[Request], prompts: list[list[int]]) -> None:
        """Run all requests of a workload, as many together as there are clients."""
        self.seconds, self._prompts, self._tokens, self._texts = 0.0, prompts, [], []
        for at in range(0, len(requests), work.clients):
            part = slice(at, at + work.clients)
            lengths = [request.new_tokens for request in requests[part]]
            answer = self._bare.ask(prompts=prompts[part], new_tokens=lengths, shares_prefix=work.has_shared_prefix)
            self.seconds += answer["seconds"]
            self._tokens += answer["tokens"]
            self._texts += answer["texts"]

    def compare(self, texts: list[str]) -> list[float | None]:
        """Return the lead of each text (see `Comparison`), or None where it equals the text of the bare loop."""
        runs = zip(texts, self._prompts, self._tokens, self._texts, strict=True)
        return [
            None if text == expected else self._lead(text, prompt, tokens) for text, prompt, tokens, expected in runs
        ]

    def _lead(self, text: str, prompt: list[int], tokens: list[int]) -> float:
        common = 0
        while common < len(tokens) - 1 and text.startswith(self._text_of(tokens[: common + 1])):
            common += 1
        return float(self._bare.ask(lead_behind=[*prompt, *tokens[:common]])["lead"])

    def _text_of(self, tokens: list[int]) -> str:
        return str(self._bare.ask(text_of=tokens)["text"]).rstrip("\ufffd")  # a part of a character


@contextmanager
def reference(model: Path, sequences: int = SLOTS) -> Iterator[Reference]:
    """The bare loop in a context of so many streams, warm."""
    with bare_loop(sequences, CELLS, model) as bare:
        bare.ask(prompts=["Warm up."], new_tokens=2)
        yield Reference(bare)


def limit(batched_bench: Path, model: Path, work: Work, prompt_tokens: int, new_tokens: int) -> Round:
    """Run llama.cpp's batched bench, prefill counted. It decodes random tokens and samples nothing."""
    options = {"-npp": prompt_tokens, "-ntg": new_tokens, "-npl": work.clients, "-c": SLOTS * CELLS, "-t": CPUS}
    command = [str(batched_bench), "-m", str(model), "--no-kv-unified", "--output-format", "jsonl"]
    command += [str(part) for option in options.items() for part in option]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in (process.stdout + process.stderr).splitlines() if line.startswith("{")]
    return Round(seconds=json.loads(lines[-1])["t"], new_tokens=work.clients * new_tokens)
