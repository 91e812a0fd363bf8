"""Slots from memory, memory from the machine."""

from pathlib import Path

import pytest

from app.contract.errors import ModelUnavailable
from workers.engines import cache_size, machine
from workers.engines.cache_size import choose_slots

GIB = 1024**3


@pytest.fixture(autouse=True)
def one_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_size, "available_memory_bytes", lambda: GIB)


@pytest.mark.parametrize(
    ("cells", "bytes_per_cell", "slots"),
    [(1024, 1024, 32), (1024, 64 * 1024, 8), (1024, 600 * 1024, 1), (1024, 900 * 1024, 1)],
)
def test_auto_takes_half_of_the_memory_and_at_least_one_slot(cells: int, bytes_per_cell: int, slots: int) -> None:
    assert choose_slots(cells, bytes_per_cell, None) == slots


def test_memory_that_is_not_the_machines_counts_where_it_is_given() -> None:
    assert choose_slots(1024, 1024 * 1024, None, 16 * GIB) == 8


def test_a_configured_number_is_taken_where_it_fits_and_refused_where_not() -> None:
    assert choose_slots(1024, 1024, 100) == 100
    with pytest.raises(ModelUnavailable, match="need 2048 MiB of memory and 1024 MiB are available"):
        choose_slots(1024, 1024 * 1024, 2)


def test_the_choice_is_logged_with_its_numbers(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        choose_slots(1024, 64 * 1024, None)
    assert caplog.messages == ["8 slots of 1024 cells: 512 MiB of 1024 MiB available"]


def test_a_containers_limits_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    before = machine.available_memory_bytes()
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert machine.available_memory_bytes() == 2_000_000 < before
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory_bytes() > 2_000_000
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert machine.usable_cpus() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.usable_cpus() >= 1
