"""The model families by name, and the runner of each. A family's library is imported only when it is configured.

How to add a family: CONTRIBUTING.md. What it implements: `workers.engines.base`, or `workers.engines.runner`.
"""

from importlib import import_module
from typing import Any

from app.config.settings import Config
from app.errors import ConfigError
from workers.batching.runner import BatchRunner
from workers.engines.base import Engine
from workers.engines.runner import Runner, RunnerHost
from workers.models.progress import ReportProgress
from workers.suggestions import did_you_mean

FAMILIES = {
    "llama": "workers.engines.llama.engine:LlamaEngine",
    "huggingface": "workers.engines.transformers.engine:HuggingfaceEngine",
    "openai": "workers.engines.remote.runner:RemoteRunner",
    "gptq_llama": "workers.engines.gptq.engine:GptqLlamaEngine",
    "autoawq": "workers.engines.gptq.engine:GptqLlamaEngine",
}
_IMAGES_WITH_TORCH = "the image `worker-transformers`, or `all` built with FAMILIES=every"
INSTALL = {
    "llama": "`make run`; in containers, use the image `worker`",
    "huggingface": f"`make huggingface`; in containers, use {_IMAGES_WITH_TORCH}",
    "gptq_llama": f"`make gptq`; in containers, use {_IMAGES_WITH_TORCH}",
    "autoawq": f"`make gptq`; in containers, use {_IMAGES_WITH_TORCH}",
    "openai": "`make openai`; in containers, use the image `forwarder`",
}


def load_runner(config: Config, report: ReportProgress, host: RunnerHost) -> Runner:
    """Load the model of the configured family, and return what runs jobs with it.

    `model_family` may be a dotted path `package.module:Engine`.

    Raises:
        ConfigError: the family is unknown, or its module cannot be imported; one line that names the fix.
        ModelUnavailable: its model cannot be loaded.
    """
    family = load_family(config.model_family)
    runner: Runner
    if issubclass(family, Engine):
        runner = BatchRunner(family(config, report), config.worker, host)
    else:
        runner = family(config, report, host)
    return runner


def load_family(model_family: str) -> type[Any]:
    """Return the class of a family, an `Engine` or a `Runner`; raises ConfigError."""
    path = model_family if ":" in model_family else FAMILIES.get(model_family)
    if path is None:
        raise ConfigError(f"model_family: {_unknown(model_family)}")
    family = _imported(path, model_family)
    if not (isinstance(family, type) and issubclass(family, Engine | Runner)):
        raise ConfigError(f"model_family: {path} is neither an Engine nor a Runner: derive your class from one of them")
    return family


def _unknown(model_family: str) -> str:
    hint = did_you_mean(model_family, FAMILIES)
    return f"there is no family {model_family!r}: {hint} (or give package.module:Engine)"


def _fix(model_family: str, missing: str) -> str:
    if model_family in INSTALL:
        return f"run {INSTALL[model_family]}"
    return f"install the package {missing}"


def _imported(path: str, model_family: str) -> object:
    module_name, _, class_name = path.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as error:
        reason = f"the family {model_family} cannot be imported ({error})"
        raise ConfigError(f"model_family: {reason}: {_fix(model_family, error.name or module_name)}") from error
    except ValueError as error:  # an empty or relative module name
        raise ConfigError(f"model_family: {path!r} is not of the form package.module:Engine") from error
    try:
        return getattr(module, class_name)
    except AttributeError as error:
        raise ConfigError(f"model_family: {module_name} has no {class_name!r}") from error
