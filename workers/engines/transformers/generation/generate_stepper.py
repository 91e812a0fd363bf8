"""`model.generate()` in a thread of its own that goes on only when it is told to, a token or so at a time.

The hook is a stopping criterion, which every way of decoding asks after each of its steps: it tells what is there and
waits for the next turn. So `generate()` runs as it is, streams, and ends within a step when it shall.
"""

import queue
import threading
from collections.abc import Callable, Generator

import torch
from torch import Tensor
from transformers import StoppingCriteria

Generate = Callable[["GenerateStepper"], Tensor]


class GenerateStepper(StoppingCriteria):  # type: ignore[misc]  # transformers is not followed by the type checker
    """Args: streams: the sequence that criteria are shown is final. should_end: asked after every step."""

    def __init__(self, prompt_tokens: int, *, streams: bool, should_end: Callable[[], bool]) -> None:
        self._seen = prompt_tokens
        self._streams = streams
        self._should_end = should_end
        self._news: queue.SimpleQueue[list[int] | Exception | None] = queue.SimpleQueue()
        self._turns = threading.Semaphore(0)
        self._closed = False
        self.has_begun = False  # the first step is done: what fails now is no refusal

    def __call__(self, input_ids: Tensor, scores: object, **_kwargs: object) -> Tensor:
        self.has_begun = True
        ends = self._should_end()
        self._tell(input_ids)
        self._turns.acquire()
        return torch.full((input_ids.shape[0],), ends or self._closed, device=input_ids.device, dtype=torch.bool)

    def turns(self, generate: Generate) -> Generator[list[int]]:
        """What each turn has brought; closing it ends the thread."""
        thread = threading.Thread(target=self._run, args=[generate], name="generate", daemon=True)
        thread.start()
        try:
            while (news := self._news.get()) is not None:
                if isinstance(news, Exception):
                    raise news
                yield news
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
            self._tell(output)
        except Exception as error:
            self._news.put(error)
        else:
            self._news.put(None)

    def _tell(self, sequences: Tensor) -> None:
        new = sequences[0, self._seen :].tolist() if self._streams else []
        self._seen += len(new)
        self._news.put(new)
