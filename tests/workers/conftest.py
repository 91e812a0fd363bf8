"""What the tests of the worker's parts share."""

import pytest


@pytest.fixture(autouse=True)
def workers_stop_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is closed waits for one look of its tokenizer service, half a second in each test."""
    monkeypatch.setattr("workers.tokenizer_service.POLL_SECONDS", 0.05)
