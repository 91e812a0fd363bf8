"""The number of slots from the memory, and the memory from the limits of the machine."""

import threading
from pathlib import Path

import pytest

from app.errors import ModelUnavailable
from tests.waiting import scaled
from workers.engines.shared import cache_size, resources
from workers.engines.shared.cache_size import choose_slots

GIB = 1024**3


@pytest.fixture(autouse=True)
def one_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_size, "available_memory_bytes", lambda: GIB)


@pytest.mark.parametrize(
    ("cells", "bytes_per_cell", "slots"),
    [(1024, 1024, 32), (1024, 64 * 1024, 8), (1024, 600 * 1024, 1), (1024, 900 * 1024, 1)],
)
def test_auto_takes_half_of_the_memory_and_at_least_one_slot(cells: int, bytes_per_cell: int, slots: int) -> None:
    assert choose_slots(cells, cells * bytes_per_cell, None) == slots


def test_memory_given_by_the_caller_counts_instead_of_the_machines() -> None:
    assert choose_slots(1024, 1024 * 1024 * 1024, None, 16 * GIB) == 8


def test_reserved_memory_is_left_free() -> None:
    assert choose_slots(1024, 1024 * 64 * 1024, None, reserved=GIB // 2) == 4
    assert choose_slots(1024, 1024 * 64 * 1024, None, reserved=2 * GIB) == 1, (
        "a model larger than the memory runs, slowly"
    )


def test_a_configured_number_is_taken_where_it_fits_and_refused_where_not() -> None:
    assert choose_slots(1024, 1024 * 1024, 100) == 100
    with pytest.raises(ModelUnavailable, match="need 2048 MiB of memory and 1024 MiB are available"):
        choose_slots(1024, 1024 * 1024 * 1024, 2)


def test_the_choice_is_logged_with_its_numbers(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        choose_slots(1024, 1024 * 64 * 1024, None)
    assert caplog.messages == ["8 slots of 1024 cells: 512 MiB of 1024 MiB available"]


def test_a_containers_limits_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    monkeypatch.setattr(resources, "_OWN_CGROUPS", tmp_path / "none")
    before = resources.available_memory_bytes()
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert resources.available_memory_bytes() == 2_000_000 < before
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 300000\nactive_file 200000\n")
    assert resources.available_memory_bytes() == 2_500_000, "cached files go when memory is needed"
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.available_memory_bytes() > 2_000_000
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert resources.usable_cpus() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert resources.usable_cpus() >= 1


@pytest.mark.parametrize(
    ("own", "folder", "names"),
    [
        ("0::/a.slice/b.service", "a.slice", ("memory.max", "memory.current")),
        ("4:cpu,memory:/a.slice/b", "memory/a.slice", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ],
)
def test_the_limits_of_a_service_and_of_the_slices_around_it_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, folder: str, names: tuple[str, str]
) -> None:
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    monkeypatch.setattr(resources, "_OWN_CGROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(f"9:name=systemd:/\n{own}\n")
    (tmp_path / folder).mkdir(parents=True)
    for name, number in zip(names, ("3000000", "1000000"), strict=True):
        (tmp_path / folder / name).write_text(f"{number}\n")
    assert resources.available_memory_bytes() == 2_000_000


def test_workers_of_one_file_take_their_memory_one_after_the_other(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.touch()
    turns: list[str] = []

    def second() -> None:
        with resources.one_at_a_time(file):
            turns.append("second")

    thread = threading.Thread(target=second)
    with resources.one_at_a_time(file):
        thread.start()
        thread.join(0.05)
        turns.append("first")
    thread.join(scaled(5))
    assert turns == ["first", "second"]
