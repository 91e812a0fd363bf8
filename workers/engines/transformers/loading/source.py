"""Where a model of transformers lies on this disk: its folder, its tokenizer's, perhaps a GGUF file."""

from dataclasses import dataclass, replace
from pathlib import Path

from app.config.params import Params
from app.config.settings import Config
from app.errors import ConfigError, ModelUnavailable
from workers.engines.transformers.loading.params import SETUP_KEYS, TransformersSetupParams
from workers.models.progress import ReportProgress
from workers.models.source import locate_model, locate_tokenizer

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
    if path.is_dir():
        folder, gguf_file = path, setup.gguf_file
        if gguf_file is not None and not (folder / gguf_file).is_file():
            raise ModelUnavailable(f"setup_params.gguf_file: there is no {gguf_file} in {folder}")
    elif path.suffix == _GGUF:
        folder, gguf_file = path.parent, path.name
    else:
        raise ConfigError(f"{path} is one file: transformers loads a folder, or a .gguf file; name that instead")
    tokenizer = folder
    if setup.tokenizer_repo_id is not None:
        tokenizer = locate_tokenizer(config, setup.tokenizer_repo_id, report)
    return WeightsSource(folder=folder, tokenizer_folder=tokenizer, gguf_file=gguf_file)


def _of_gguf_file(config: Config, setup: TransformersSetupParams) -> Config:
    """Return the configuration that fetches only the named GGUF file of a repository."""
    if setup.gguf_file is None or "repo_id" not in config.setup_params:
        return config
    if "filename" in config.setup_params:
        raise ConfigError("setup_params.filename and setup_params.gguf_file name the same thing: keep one of them")
    return replace(config, setup_params=Params({**config.setup_params, "filename": setup.gguf_file}))
