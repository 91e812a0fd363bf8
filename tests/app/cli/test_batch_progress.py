"""The progress of a batch as people read it."""

import pytest

from app.cli.batch_progress import times


@pytest.mark.parametrize(
    ("elapsed", "left", "shown"),
    [
        (None, None, "0:00:00"),
        (2.4, None, "0:00:02"),
        (65.0, 30.2, "0:01:05, about 0:00:30 left"),
        (70.0, 0, "0:01:10"),
    ],
)
def test_the_time_left_is_shown_once_it_is_known(elapsed: float | None, left: float | None, shown: str) -> None:
    assert times(elapsed, left) == shown
