"""How far a download is, told to the API (`report`) and on the terminal (the log)."""

import logging
import time
from collections.abc import Callable

ReportProgress = Callable[[str, float | None], None]
"""Called while a model is fetched and loaded: what is going on, in words, and how far it is (0-1, None: unknown)."""

REPORT_STEP = 0.01
"""Share of the whole after which the API is told again."""
LOG_STEP = 0.1
"""Share of the whole after which the terminal gets a line ..."""
LOG_SECONDS = 10.0
"""... or the time after which it gets one anyway, so that a slow download does not look dead."""

logger = logging.getLogger(__name__)


class DownloadProgress:
    """Counts bytes. What it reports never falls, not even when a file has to start over.

    total_bytes: None where the hub does not tell; then the fraction is unknown, too.
    """

    def __init__(self, label: str, total_bytes: int | None, report: ReportProgress) -> None:
        self._label = label
        self._total_bytes = total_bytes
        self._report = report
        self._fraction = 0.0
        self._reported: float | None = None
        self._logged = 0.0
        self._logged_at = time.monotonic()
        self._ended_bytes = 0
        self._done_bytes = 0

    def at(self, file_bytes: int) -> None:
        """`file_bytes` of the present file are on the disk."""
        self._done_bytes = self._ended_bytes + file_bytes
        if self._total_bytes:
            self._fraction = min(1.0, self._done_bytes / self._total_bytes)
        if self._reported is None or self._fraction >= min(1.0, self._reported + REPORT_STEP) > self._reported:
            self._reported = self._fraction
            self._report(f"downloading {self._label}", self._fraction if self._total_bytes else None)
        now = time.monotonic()
        if self._fraction >= self._logged + LOG_STEP or now >= self._logged_at + LOG_SECONDS:
            self._logged, self._logged_at = self._fraction, now
            logger.info("downloading %s: %s", self._label, self._how_far())

    def end_file(self, file_bytes: int) -> None:
        """The present file is whole; the next one begins."""
        self.at(file_bytes)
        self._ended_bytes = self._done_bytes

    def _how_far(self) -> str:
        if not self._total_bytes:
            return readable_size(self._done_bytes)
        return f"{self._fraction:.0%} of {readable_size(self._total_bytes)}"


def readable_size(size_bytes: int) -> str:
    """Bytes as a disk's label counts them: 1 MB is 1,000,000 bytes."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
