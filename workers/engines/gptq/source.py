"""Where a GPTQ model lies: the folder with its configuration and tokenizer, and the files with its weights."""

import json
from dataclasses import dataclass
from pathlib import Path

from app.config.settings import Config
from app.errors import ConfigError, ModelUnavailable
from workers.engines.gptq.conversion import PICKLED, converted
from workers.engines.transformers.loading.params import TransformersSetupParams
from workers.engines.transformers.loading.source import WeightsSource
from workers.models.progress import ReportProgress
from workers.models.source import check_source, locate_model, locate_tokenizer

_KEYS = frozenset({"tokenizer_repo_id", "trust_remote_code", "config_params"})
_INDEX = "*.safetensors.index.json"
_WEIGHTS = (".safetensors", *PICKLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class GptqSource:
    """model: its configuration and tokenizer. weights: safetensors files, all of them."""

    model: WeightsSource
    weights: tuple[Path, ...]


def locate(config: Config, setup: TransformersSetupParams, report: ReportProgress) -> GptqSource:
    """Fetch what is not on this disk yet, and convert what torch has pickled.

    Raises:
        ConfigError, ModelUnavailable: as `workers.models.source.locate_model`, and `conversion.converted`.
    """
    path = locate_model(config, report, extra_keys=_KEYS, with_configuration=True)
    folder, weights = (path, _weights_of(path)) if path.is_dir() else (_folder_of(path), [path])
    tokenizer = folder
    if setup.tokenizer_repo_id is not None:
        tokenizer = locate_tokenizer(config, setup.tokenizer_repo_id, report)
    files = tuple(converted(file, config.models_dir, report) if file.suffix in PICKLED else file for file in weights)
    return GptqSource(model=WeightsSource(folder=folder, tokenizer_folder=tokenizer), weights=files)


def check_location(config: Config) -> None:
    """Check `setup_params` as `locate` does, and fetch nothing. Raises ConfigError, ModelUnavailable."""
    path = check_source(config, extra_keys=_KEYS)
    if path is not None:
        _weights_of(path) if path.is_dir() else _folder_of(path)


def _folder_of(file: Path) -> Path:
    if file.suffix not in _WEIGHTS:
        raise ConfigError(f"{file} is no file of weights: name a folder, or a file that ends with .safetensors or .pt")
    folder = next((folder for folder in file.parents[:2] if (folder / "config.json").exists()), file.parent)
    if not (folder / "config.json").exists():
        raise ModelUnavailable(
            f"there is no config.json beside {file}: put the model's config.json and tokenizer files there"
        )
    return folder


def _weights_of(folder: Path) -> list[Path]:
    index = sorted(folder.glob(_INDEX))
    if len(index) == 1:
        try:
            names = sorted(set(json.loads(index[0].read_text())["weight_map"].values()))
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise ModelUnavailable(f"{index[0]} cannot be read ({type(error).__name__}): get it anew") from error
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ModelUnavailable(f"{folder} has no {missing[0]}, which its index names: get it anew")
        return [folder / name for name in names]
    for kinds in ((".safetensors",), PICKLED):
        files = sorted(file for file in folder.iterdir() if file.suffix in kinds)
        if len(files) == 1:
            return files
        if files:
            shown = ", ".join(file.name for file in files[:4])
            raise ConfigError(
                f"{folder} holds {len(files)} files of weights ({shown}): name one, with "
                "setup_params.filename for a repository or setup_params.path"
            )
    raise ModelUnavailable(f"{folder} holds no weights: expected a .safetensors or .pt file")
