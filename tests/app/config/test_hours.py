"""Hours of the day, over midnight and over changes of the clock."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from app.config.hours import Hours

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = BERLIN, *, fold: int = 0) -> float:
    """Return the Unix seconds of a time on a clock; fold 1: the second of two that look the same."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("09:00-17:00", ["09:00:00", "16:59:59"], ["08:59:59", "17:00:00", "00:00:00"]),
        ("20:00-06:00", ["20:00:00", "23:59:59", "00:00:00", "05:59:59"], ["19:59:59", "06:00:00", "12:00:00"]),
        ("22:00-00:00", ["22:00:00", "23:59:59"], ["00:00:00", "21:59:59"]),
        ("00:00-23:59", ["00:00:00", "23:58:59"], ["23:59:00"]),
    ],
)
def test_hours_include_their_start_and_not_their_end(hours: str, inside: list[str], outside: list[str]) -> None:
    parsed = Hours.parse(hours, BERLIN)
    assert [parsed.include(at(f"2026-07-01T{clock}")) for clock in inside] == [True] * len(inside)
    assert [parsed.include(at(f"2026-07-01T{clock}")) for clock in outside] == [False] * len(outside)


def test_the_clock_of_the_zone_counts() -> None:
    moment = at("2026-07-01T20:30", "UTC")
    assert Hours.parse("20:00-06:00", "UTC").include(moment)
    assert not Hours.parse("20:00-06:00", "America/New_York").include(moment), "it is 16:30 there"


def test_the_next_opening_is_the_first_minute_that_they_include() -> None:
    hours = Hours.parse("20:00-06:00", BERLIN)
    assert hours.next_opening(at("2026-07-01T06:00")) == at("2026-07-01T20:00")
    assert hours.next_opening(at("2026-07-01T19:59:59")) == at("2026-07-01T20:00")
    assert hours.next_opening(at("2026-07-01T23:10:07")) == at("2026-07-01T23:10:07"), "it is open"


@pytest.mark.parametrize(
    ("hours", "before", "opening"),
    [
        pytest.param("20:00-06:00", "2026-03-28T12:00", "2026-03-28T20:00", id="the day before"),
        pytest.param("20:00-06:00", "2026-03-29T12:00", "2026-03-29T20:00", id="the day itself"),
        pytest.param("02:30-05:00", "2026-03-29T01:59", "2026-03-29T03:00", id="the start is left out"),
        pytest.param("02:10-02:40", "2026-03-29T01:59", "2026-03-30T02:10", id="all of it is left out"),
    ],
)
def test_where_the_clock_is_set_forward(hours: str, before: str, opening: str) -> None:
    assert Hours.parse(hours, BERLIN).next_opening(at(before)) == at(opening)


def test_where_the_clock_is_set_back_into_the_hours_they_are_longer() -> None:
    hours = Hours.parse("01:00-02:30", BERLIN)
    first, between, second = at("2026-10-25T02:29"), at("2026-10-25T02:45"), at("2026-10-25T02:00", fold=1)
    assert [hours.include(moment) for moment in (first, between, second)] == [True, False, True]
    assert hours.next_opening(between) == second
    over_night = Hours.parse("20:00-06:00", BERLIN)
    opened, closed = at("2026-10-24T20:00"), at("2026-10-25T06:00")
    assert (closed - opened) / 3600 == 11 and all(over_night.include(opened + 60 * n) for n in range(11 * 60))


@pytest.mark.parametrize("hours", ["20:00", "20-06", "8:00-17:00", "24:00-06:00", "20:00-20:00", "20:60-06:00", ""])
def test_what_are_no_hours(hours: str) -> None:
    with pytest.raises(ValueError, match="no hours"):
        Hours.parse(hours, "UTC")


@pytest.mark.parametrize("zone", ["Berlin", "Europe", "Europe/Atlantis", "", "../etc/passwd", "/etc/localtime", "\0"])
def test_what_is_no_time_zone(zone: str) -> None:
    with pytest.raises(ValueError, match="no such time zone"):
        Hours.parse("20:00-06:00", zone)
