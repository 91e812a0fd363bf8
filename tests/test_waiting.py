"""Deadlines grow with the load of the machine, and only with it."""

import pytest

from tests import waiting
from tests.waiting import MOST, scaled


@pytest.mark.parametrize(
    ("core", "crowd_at_start", "crowd_now", "factor"),
    [
        (0.7, 1.0, 0.5, 1.0),
        (2.0, 1.0, 0.5, 2.0),
        (1.0, 4.5, 0.5, 4.5),
        (1.0, 1.0, 4.5, 4.5),
        (1.5, 2.0, 4.0, 6.0),
        (1.0, 50.0, 1.0, MOST),
    ],
)
def test_a_deadline_grows_with_slow_cores_and_with_the_load_of_the_machine(
    core: float, crowd_at_start: float, crowd_now: float, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "measured", lambda: (core, crowd_at_start))
    monkeypatch.setattr(waiting, "_crowd", lambda: crowd_now)
    assert scaled(10) == 10 * factor


def test_what_one_process_has_measured_others_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.MEASURED, "1.25 3.50")
    assert waiting.measured.__wrapped__() == (1.25, 3.5)
