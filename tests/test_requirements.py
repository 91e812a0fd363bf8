"""The requirement files, which `make lock` writes from pyproject.toml: complete, with hashes, and in agreement."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.stack import ROOT

LOCKS = [
    ROOT / "requirements.txt",
    ROOT / "app/requirements-run.txt",
    ROOT / "deploy/image/requirements-uv.txt",
    ROOT / "docs/requirements.txt",
    *sorted((ROOT / "workers/requirements").glob("*.txt")),
    *sorted((ROOT / "tests").glob("requirements*.txt")),
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS, GROUPS = PROJECT["project"]["optional-dependencies"], PROJECT["dependency-groups"]
WANTED = {
    "requirements.txt": [PROJECT["project"]["dependencies"]],
    "app/requirements-run.txt": [PROJECT["project"]["dependencies"], EXTRAS["llama"], EXTRAS["run"]],
    "deploy/image/requirements-uv.txt": [GROUPS["images"]],
    "docs/requirements.txt": [PROJECT["project"]["dependencies"], GROUPS["docs"]],
    "workers/requirements/gptq_llama.txt": [GROUPS["gptq_llama"]],
    "workers/requirements/huggingface.txt": [PROJECT["project"]["dependencies"], EXTRAS["huggingface"]],
    "workers/requirements/llama.txt": [PROJECT["project"]["dependencies"], EXTRAS["llama"]],
    "workers/requirements/openai.txt": [PROJECT["project"]["dependencies"], EXTRAS["openai"]],
    "tests/requirements-bench.txt": [EXTRAS["huggingface"], GROUPS["bench"]],
    "tests/requirements-fast.txt": [EXTRAS["openai"], GROUPS["fast_test"]],
    "tests/requirements-supply-chain.txt": [GROUPS["supply_chain"]],
    "tests/requirements.txt": [*EXTRAS.values(), GROUPS["fast_test"], GROUPS["test"]],
}


def entries(file: Path) -> dict[str, tuple[Requirement, int]]:
    """Return each requirement of a file and the number of its hashes, by its line."""
    parsed = {}
    for entry in re.split(r"\n(?=[a-z0-9])", file.read_text())[1:]:
        line, *rest = entry.splitlines()
        rest = [one for one in rest if one.strip() and not one.startswith("#")]
        hashes = [one for one in rest if re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", one)]
        assert len(hashes) == len(rest), f"{file.name}: {line} has lines that are no hashes"
        parsed[line] = (Requirement(line.rstrip(" \\")), len(hashes))
    return parsed


@pytest.mark.parametrize("file", LOCKS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_package_has_one_version_and_hashes(file: Path) -> None:
    for requirement, hashes in entries(file).values():
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
        assert hashes, f"{requirement} has no hash"


@pytest.mark.parametrize("file", LOCKS, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_has_the_versions_that_pyproject_names(file: Path) -> None:
    held = {(canonicalize_name(one.name), str(one.specifier)) for one, _ in entries(file).values()}
    for text in [text for texts in WANTED[str(file.relative_to(ROOT))] for text in texts]:
        wanted = Requirement(text)
        if wanted.name != "torch":  # stands apart
            assert (canonicalize_name(wanted.name), str(wanted.specifier)) in held, f"run `make lock`: {text}"


def test_the_files_agree_about_every_version() -> None:
    versions: dict[tuple[str, str], set[str]] = {}
    for file in LOCKS:
        for requirement, _ in entries(file).values():
            key = (canonicalize_name(requirement.name), str(requirement.marker))
            versions.setdefault(key, set()).add(str(requirement.specifier))
    assert {key: found for key, found in versions.items() if len(found) > 1} == {}
