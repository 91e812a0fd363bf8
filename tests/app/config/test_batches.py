"""The keys about batches: what is refused when the service starts."""

from pathlib import Path

import pytest

from app.config.batches import BatchesConfig
from app.config.loader import load_config
from app.errors import ConfigError


def load(tmp_path: Path, **keys: str) -> BatchesConfig:
    path = tmp_path / "config.yaml"
    path.write_text("batches:\n" + "".join(f"  {name}: {value}\n" for name, value in keys.items()))
    return load_config(path, {}).batches


def test_hours_are_read_with_their_time_zone(tmp_path: Path) -> None:
    assert str(load(tmp_path, hours="20:00-06:00", time_zone="Europe/Berlin").opening) == "20:00-06:00 Europe/Berlin"
    assert str(load(tmp_path, hours='"08:30-17:00"').opening) == "08:30-17:00 UTC"
    assert load(tmp_path, hours="null").opening is None


@pytest.mark.parametrize("keys", [{"hours": "20:00"}, {"hours": "20:00-20:00"}, {"hours": "late"}])
def test_other_hours_are_refused(tmp_path: Path, keys: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"batches\.hours: expected hours such as 20:00-06:00"):
        load(tmp_path, **keys)


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "CEST+1", "Europe"])
def test_an_unknown_time_zone_is_refused(tmp_path: Path, zone: str) -> None:
    with pytest.raises(ConfigError, match=r"batches\.time_zone: expected a name of the IANA database such as Europe"):
        load(tmp_path, hours="20:00-06:00", time_zone=zone)
