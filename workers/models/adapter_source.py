"""Where a LoRA adapter comes from: a path of this machine, or a repository of the Hugging Face Hub."""

from pathlib import Path

from app.config.adapters import Adapter, configured_adapters
from app.config.settings import Config
from app.errors import ConfigError, ModelUnavailable
from workers.models.progress import ReportProgress


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
    )
    return fetch_from_hub(source, config.models_dir, config.model_family, report)


def check_adapter_source(adapter: Adapter, *, single_file: bool) -> Path | None:
    """Return an adapter of this machine; None: it is on the Hub, which is not asked. Raises as `locate_adapter`."""
    key = f"model_params.loras.{adapter.name}"
    if adapter.path is None:
        if single_file and adapter.filename is None:
            raise ConfigError(f"{key}.filename is missing: name a .gguf file of the repository")
        if not single_file and adapter.filename is not None:
            raise ConfigError(f"{key}.filename: this family loads the whole repository of an adapter; leave it out")
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
