"""The model families by name. A family's library is imported only when the family is asked for."""

from difflib import get_close_matches
from importlib import import_module

from app.errors import ConfigError
from workers.engines.base import Engine

FAMILIES = {
    "llama": "workers.engines.llama.engine:LlamaEngine",
    "huggingface": "workers.engines.transformers.engine:HuggingfaceEngine",
    "openai": "workers.engines.remote.engine:OpenAIEngine",
    "gptq_llama": "workers.engines.gptq.engine:GptqLlamaEngine",
}
_WITH_TRANSFORMERS = "pip install -r workers/requirements/huggingface.txt"
INSTALL = {
    "llama": "pip install -r workers/requirements/llama.txt",
    "huggingface": _WITH_TRANSFORMERS,
    "gptq_llama": f"{_WITH_TRANSFORMERS} && pip install --no-deps -r workers/requirements/gptq_llama.txt",
    "openai": "pip install -r workers/requirements/openai.txt",
}


def load_engine_class(model_family: str) -> type[Engine]:
    """The engine class of a family, or of a dotted path `package.module:Engine`.

    Raises:
        ConfigError: the family is unknown, or its module cannot be imported; one line that names the cure.
    """
    path = model_family if ":" in model_family else FAMILIES.get(model_family)
    if path is None:
        raise ConfigError(f"model_family: {_unknown(model_family)}")
    engine_class = _imported(path, model_family)
    if not (isinstance(engine_class, type) and issubclass(engine_class, Engine)):
        raise ConfigError(f"model_family: {path} is no workers.engines.base.Engine: derive your class from it")
    return engine_class


def _unknown(model_family: str) -> str:
    nearest = get_close_matches(model_family, FAMILIES, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(FAMILIES)}"
    return f"there is no family {model_family!r}: {hint} (or give package.module:Engine)"


def _cure(model_family: str, missing: str) -> str:
    if model_family in INSTALL:
        return f"run `{INSTALL[model_family]}`"
    return f"install the package {missing}"


def _imported(path: str, model_family: str) -> object:
    module_name, _, class_name = path.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as error:
        reason = f"the family {model_family} cannot be imported ({error})"
        raise ConfigError(f"model_family: {reason}: {_cure(model_family, error.name or module_name)}") from error
    except ValueError as error:  # an empty or relative module name
        raise ConfigError(f"model_family: {path!r} is not of the form package.module:Engine") from error
    try:
        return getattr(module, class_name)
    except AttributeError as error:
        raise ConfigError(f"model_family: {module_name} has no {class_name!r}") from error
