"""Where a LoRA adapter comes from: a path of this machine, or a repository of the Hugging Face Hub."""

import re
from pathlib import Path, PurePosixPath

from app.config.adapters import Adapter, configured_adapters
from app.config.settings import Config
from app.errors import ConfigError, ModelUnavailable
from workers.models.progress import ReportProgress

_REPOSITORY = re.compile(r"(?P<repo_id>[\w.-]+/[\w.-]+)(/(?P<filename>[^\\]*[^\\/]))?")


def place_of(adapter: Adapter) -> str:
    """Return what names an adapter where it was given, for messages."""
    return "lora_path" if adapter.version else f"model_params.loras.{adapter.name}"


def runtime_adapter(models_dir: Path, name: str, source: str, version: str) -> Adapter:
    """Return the adapter that a client of the API names: it may not be elsewhere on this machine than in `models_dir`.

    Args:
        source: a path, relative ones to `models_dir`; or `owner/name` or `owner/name/file` of the Hub.

    Raises:
        ModelUnavailable: one line that says what to do.
    """
    root = models_dir.expanduser().resolve()
    try:
        path = (root / source).resolve()
        is_path = source.startswith(("/", ".", "~")) or path.exists()
        within = [path, *(path.iterdir() if is_path and path.is_dir() else ())]
        is_inside = path != root and all(one.resolve().is_relative_to(root) for one in within)
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, links in a circle
        raise ModelUnavailable(f"lora_path is no path ({type(error).__name__}): name a file or folder") from None
    if is_path:
        if not is_inside:
            raise ModelUnavailable(f"lora_path must lie in models_dir of the worker ({root}), without links out of it")
        return Adapter(name=name, path=str(path), version=version)
    match = _REPOSITORY.fullmatch(source)
    if match is None or ".." in PurePosixPath(source).parts:
        raise ModelUnavailable(f"lora_path: there is no {path}, and {source!r} is no repository such as owner/name")
    return Adapter(name=name, repo_id=match["repo_id"], filename=match["filename"], version=version)


def locate_adapter(config: Config, adapter: Adapter, report: ReportProgress, *, single_file: bool) -> Path:
    """Return the adapter's file or folder, fetched first where it is on the Hub and not here yet.

    Args:
        single_file: the family loads a file, not a folder.

    Raises:
        ConfigError, ModelUnavailable: one line that says what to do.
    """
    path = check_adapter_source(adapter, single_file=single_file)
    if path is not None:
        return path
    # These imports cost 0.3 s, and only the Hub needs them.
    from workers.models.hub_download import fetch_from_hub
    from workers.models.hub_source import HubSource

    assert adapter.repo_id is not None, "an adapter has a path or a repository"
    source = HubSource(
        repo_id=adapter.repo_id,
        filename=adapter.filename,
        revision=adapter.revision,
        token=config.setup_params.get("token"),
        section=place_of(adapter),
    )
    return fetch_from_hub(source, config.models_dir, config.model_family, report)


def check_adapter_source(adapter: Adapter, *, single_file: bool) -> Path | None:
    """Return an adapter of this machine; None: it is on the Hub, which is not asked. Raises as `locate_adapter`."""
    key = place_of(adapter)
    if adapter.path is None:
        if single_file and adapter.filename is None:
            if adapter.version:
                raise ConfigError(f"{key}: name a .gguf file in models_dir, or of a repository: owner/name/file.gguf")
            raise ConfigError(f"{key}.filename is missing: name a .gguf file of the repository")
        if not single_file and adapter.filename is not None:
            field = key if adapter.version else f"{key}.filename"
            raise ConfigError(f"{field}: this family loads the whole repository of an adapter; leave the file out")
        return None
    path = Path(adapter.path).expanduser().absolute()
    if not path.exists():
        raise ModelUnavailable(f"{key}: there is no {path}: correct the path or put the adapter there")
    if path.is_dir() is single_file:
        wanted = "a GGUF file" if single_file else "a folder with adapter_config.json"
        raise ModelUnavailable(f"{key}: {path} is a {'folder' if single_file else 'file'}; name {wanted}")
    return path


def check_adapter_sources(config: Config, *, single_file: bool) -> None:
    """Check all adapters of the configuration, and fetch nothing. Raises as `locate_adapter`."""
    for adapter in configured_adapters(config).values():
        check_adapter_source(adapter, single_file=single_file)
