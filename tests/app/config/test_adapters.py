"""`model_params.loras`."""

from pathlib import Path

import pytest

from app.config.adapters import Adapter, configured_adapters
from app.config.loader import load_config
from app.errors import ConfigError


def adapters_of(tmp_path: Path, loras: str) -> dict[str, Adapter]:
    file = tmp_path / "config.yaml"
    file.write_text(f"model_name: base\nmodel_aliases: {{other: default}}\nmodel_params: {{loras: {loras}}}\n")
    return configured_adapters(load_config(file, {}))


def test_an_adapter_is_a_path_or_a_mapping_with_its_source_and_scale(tmp_path: Path) -> None:
    found = adapters_of(tmp_path, "{a: /a.gguf, b: {path: b, scale: 2}, c: {repo_id: x/y, filename: f.gguf}}")
    assert list(found.values()) == [
        Adapter(name="a", path="/a.gguf"),
        Adapter(name="b", path="b", scale=2.0),
        Adapter(name="c", repo_id="x/y", filename="f.gguf"),
    ]
    assert adapters_of(tmp_path, "null") == {}


@pytest.mark.parametrize(
    ("loras", "reason"),
    [
        ("[a]", "loras must be a mapping"),
        ("{a: 5}", "loras.a must be the path"),
        ("{a: {scale: 1}}", "loras.a must be the path"),
        ("{a: {path: x, repo_id: x/y}}", "loras.a must be the path"),
        ("{a: {path: x, filename: y}}", "filename and revision go with repo_id"),
        ("{a: {path: x, weight: 1}}", "loras.a.weight is unknown"),
        ("{a: {path: x, scale: .inf}}", "loras.a.scale must be a number"),
        ("{a: {path: ' '}}", "loras.a.path must be one line"),
        ("{base: x}", "has this name already"),
        ("{other: x}", "has this name already"),
    ],
)
def test_a_wrong_adapter_is_refused_with_its_key(tmp_path: Path, loras: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        adapters_of(tmp_path, loras)
