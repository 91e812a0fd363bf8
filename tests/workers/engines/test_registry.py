"""Families by name, and the errors for wrong names."""

import subprocess
import sys

import pytest

from app.errors import ConfigError
from workers.engines.llama.engine import LlamaEngine
from workers.engines.registry import load_family


def test_the_llama_family_is_found_by_name() -> None:
    assert load_family("llama") is LlamaEngine


def test_a_dotted_path_is_a_family_too() -> None:
    assert load_family("workers.engines.llama.engine:LlamaEngine") is LlamaEngine


def test_importing_the_registry_imports_no_model_library() -> None:
    program = "import sys, workers.engines.registry; sys.exit('llama_cpp' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_llama_worker_loads_neither_torch_nor_transformers() -> None:
    program = "import sys; from workers.engines.registry import load_family as load; load('llama'); "
    families = "'workers.engines.transformers', 'workers.engines.gptq'"
    program += f"sys.exit(bool({{'torch', 'transformers', {families}}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(("family", "package"), [("huggingface", "transformers"), ("gptq_llama", "gptq")])
def test_a_family_whose_packages_are_missing_names_the_make_target_and_the_image(
    family: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith(f"workers.engines.{package}")]:
        monkeypatch.delitem(sys.modules, name)
    target = {"huggingface": "huggingface", "gptq_llama": "gptq"}[family]
    with pytest.raises(ConfigError, match=rf"run `make {target}`; .* the image `worker-transformers`") as caught:
        load_family(family)
    assert "\n" not in caught.value.detail


def test_choosing_the_gptq_family_loads_no_gptqmodel_until_a_model_is_loaded() -> None:
    program = "import sys; from workers.engines.registry import load_family as load; load('gptq_llama'); "
    program += "sys.exit(bool({'gptqmodel', 'optimum', 'logbar'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("family", "hint"),
    [
        ("lama", "did you mean llama?"),
        ("zzz", "known are"),
        ("no_such_package.engine:Engine", "install the package no_such_package"),
        ("workers.engines.base:Nothing", "has no 'Nothing'"),
        ("workers.engines.base:Limits", "derive your class"),
        (":Engine", "package.module:Engine"),
    ],
)
def test_an_unknown_family_is_a_config_error_that_names_the_cure(family: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="model_family") as caught:
        load_family(family)
    assert hint in caught.value.detail
