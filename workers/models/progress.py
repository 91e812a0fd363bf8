"""The progress of a download, for the API (`report`) and the terminal (the log)."""

import logging
import time
from collections.abc import Callable

ReportProgress = Callable[[str, float | None], None]
"""Called while a model is fetched and loaded: what happens now, in words, and how much is done (0-1, None: unknown)."""


def silent(_detail: str, _progress: float | None) -> None:
    """Report nothing."""


LOG_SECONDS = 10.0
"""The terminal gets a line for every tenth of the whole, and after this time, so that a slow download looks alive."""

logger = logging.getLogger(__name__)


class DownloadProgress:
    """Counts bytes, and reports every percent. What it reports never falls, not even when a file starts over.

    Args:
        done_bytes: what an earlier attempt brought.
    """

    def __init__(self, label: str, total_bytes: int, done_bytes: int, report: ReportProgress) -> None:
        self._label = label
        self._total_bytes = total_bytes
        self._done_bytes = done_bytes
        self._report = report
        self._reported_percent = -1
        self._logged_percent = 0
        self._logged_at = time.monotonic()

    def add(self, count: int) -> None:
        """Count bytes that have arrived; a negative count takes back those of a file that starts over."""
        self._done_bytes += count
        percent = min(100, 100 * self._done_bytes // max(1, self._total_bytes))
        if percent > self._reported_percent:
            self._reported_percent = percent
            self._report(f"downloading {self._label}", percent / 100)
        now = time.monotonic()
        if percent >= self._logged_percent + 10 or now >= self._logged_at + LOG_SECONDS:
            self._logged_percent, self._logged_at = percent, now
            logger.info("downloading %s: %d%% of %s", self._label, percent, readable_size(self._total_bytes))


def readable_size(size_bytes: int) -> str:
    """Bytes as a disk's label counts them: 1 MB is 1,000,000 bytes."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
