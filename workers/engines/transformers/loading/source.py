"""Where a model of transformers lies on this disk: its folder, its tokenizer's, perhaps a GGUF file."""

from dataclasses import dataclass, replace
from pathlib import Path

from app.config.params import Params
from app.config.settings import Config
from app.errors import ConfigError, ModelUnavailable
from workers.engines.transformers.loading.params import SETUP_KEYS, TransformersSetupParams
from workers.models.progress import ReportProgress
from workers.models.source import check_source, locate_model, locate_tokenizer

_GGUF = ".gguf"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSource:
    """gguf_file: name of the file in `folder` that holds the model; then the tokenizer may be in it too."""

    folder: Path
    tokenizer_folder: Path
    gguf_file: str | None = None

    @property
    def label(self) -> str:
        return str(self.folder / self.gguf_file if self.gguf_file else self.folder)


def locate(config: Config, setup: TransformersSetupParams, report: ReportProgress) -> WeightsSource:
    """Fetch what is not on this disk yet.

    Raises:
        ConfigError, ModelUnavailable: as `workers.models.source.locate_model`.
    """
    path = locate_model(_of_gguf_file(config, setup), report, extra_keys=SETUP_KEYS)
    folder, gguf_file = _folder_and_gguf_file(path, setup)
    tokenizer = folder
    if setup.tokenizer_repo_id is not None:
        tokenizer = locate_tokenizer(config, setup.tokenizer_repo_id, report)
    return WeightsSource(folder=folder, tokenizer_folder=tokenizer, gguf_file=gguf_file)


def check_location(config: Config, setup: TransformersSetupParams) -> None:
    """Check `setup_params` as `locate` does, and fetch nothing. Raises ConfigError, ModelUnavailable."""
    path = check_source(_of_gguf_file(config, setup), extra_keys=SETUP_KEYS)
    if path is not None:
        _folder_and_gguf_file(path, setup)


def _folder_and_gguf_file(path: Path, setup: TransformersSetupParams) -> tuple[Path, str | None]:
    if path.is_dir():
        if setup.gguf_file is not None and not (path / setup.gguf_file).is_file():
            raise ModelUnavailable(f"setup_params.gguf_file: there is no {setup.gguf_file} in {path}")
        return path, setup.gguf_file
    if path.suffix == _GGUF:
        return path.parent, path.name
    raise ConfigError(f"{path} is one file: transformers loads a folder, or a .gguf file; name that instead")


def _of_gguf_file(config: Config, setup: TransformersSetupParams) -> Config:
    """Return the configuration that fetches only the named GGUF file of a repository."""
    if setup.gguf_file is None or "repo_id" not in config.setup_params:
        return config
    if "filename" in config.setup_params:
        raise ConfigError("setup_params.filename and setup_params.gguf_file name the same thing: keep one of them")
    return replace(config, setup_params=Params({**config.setup_params, "filename": setup.gguf_file}))
