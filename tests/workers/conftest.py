"""Fixtures that the tests of the worker share."""

import pytest


@pytest.fixture(autouse=True)
def workers_stop_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the poll of the tokenizer service: closing a worker waits for it, half a second by default."""
    monkeypatch.setattr("workers.tokenizer_service.POLL_SECONDS", 0.05)
