"""`model.generate()` in a thread of its own that pauses after every step, until the loop gives it the next turn.

The hook is a stopping criterion, which every way of decoding asks after each of its steps: it reports the new tokens
and waits for the next turn. So `generate()` runs as it is, streams, and ends within a step when it is stopped.
"""

import queue
import threading
from collections.abc import Callable, Generator

import torch
from torch import Tensor
from transformers import StoppingCriteria

Generate = Callable[["GenerateStepper"], Tensor]


class GenerateStepper(StoppingCriteria):  # type: ignore[misc]  # transformers is not followed by the type checker
    """Args: streams: the tokens that criteria are given are final. should_end: asked after every step."""

    def __init__(self, prompt_tokens: int, *, streams: bool, should_end: Callable[[], bool]) -> None:
        self._reported = prompt_tokens
        self._streams = streams
        self._should_end = should_end
        self._results: queue.SimpleQueue[list[int] | Exception | None] = queue.SimpleQueue()
        self._turns = threading.Semaphore(0)
        self._closed = False
        self.has_begun = False  # the first step is done: a later failure is not a rejection of the arguments

    def __call__(self, input_ids: Tensor, scores: object, **_kwargs: object) -> Tensor:
        """Called by `generate()` after each step. Returns whether each sequence ends, `[rows]`."""
        self.has_begun = True
        ends = self._should_end()
        self._report(input_ids)
        self._turns.acquire()
        return torch.full((input_ids.shape[0],), ends or self._closed, device=input_ids.device, dtype=torch.bool)

    def steps(self, generate: Generate) -> Generator[list[int]]:
        """Yield the new tokens of each step; closing the generator ends the thread."""
        thread = threading.Thread(target=self._run, args=[generate], name="generate", daemon=True)
        thread.start()
        try:
            while (result := self._results.get()) is not None:
                if isinstance(result, Exception):
                    raise result
                yield result
                self._turns.release()
        finally:
            self._closed = True
            self._turns.release()
            thread.join()

    def _run(self, generate: Generate) -> None:
        try:
            with torch.inference_mode():
                output = generate(self)
            self._streams = True
            self._report(output)
        except Exception as error:
            self._results.put(error)
        else:
            self._results.put(None)

    def _report(self, sequences: Tensor) -> None:
        new = sequences[0, self._reported :].tolist() if self._streams else []
        self._reported += len(new)
        self._results.put(new)
