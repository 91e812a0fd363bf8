"""From a file of an old format to its GGUF copy under `models_dir`, which is made once."""

import logging
import shutil
from pathlib import Path

from huggingface_hub.hf_api import RepoSibling

from app.config.settings import Config
from app.errors import ModelUnavailable
from workers.models.folder import ModelFolder
from workers.models.ggml.options import ConversionOptions
from workers.models.ggml.reader import OldModel, read_model
from workers.models.ggml.writer import write_gguf
from workers.models.progress import ReportProgress, readable_size

_HEADER_BYTES = 1024 * 1024  # more than a GGUF's header has beyond that of the old file

logger = logging.getLogger(__name__)


def converted_copy(path: Path, options: ConversionOptions, config: Config, report: ReportProgress) -> Path:
    """Return the GGUF copy of a file of an old format. Several workers of one disk make it once.

    Raises:
        ModelUnavailable: it cannot be converted; one line that says what to do.
    """
    status = path.stat()
    key = ["converted", str(path.absolute()), str(status.st_size), str(status.st_mtime_ns), *options.key]
    folder = ModelFolder.of(config.models_dir, config.model_family, key, label=path.name)
    copy = RepoSibling(rfilename=f"{path.stem}.gguf", size=status.st_size + _HEADER_BYTES)
    if not folder.is_complete:
        model = _checked(path, options)
        with folder.alone(report, work="converts", when_full="what was converted is deleted"):
            if not folder.is_complete:  # else another process converted it while this one waited
                _convert(model, options, folder, copy, report)
    return folder.path / copy.rfilename


def _checked(path: Path, options: ConversionOptions) -> OldModel:
    model = read_model(path)
    grouped = model.heads // model.key_value_heads
    if options.n_gqa not in (None, grouped):
        raise ModelUnavailable(f"{path} has n_gqa {grouped}, not {options.n_gqa}: leave out setup_params.convert.n_gqa")
    return model


def _convert(
    model: OldModel, options: ConversionOptions, folder: ModelFolder, copy: RepoSibling, report: ReportProgress
) -> None:
    doing = f"converting {folder.label} to GGUF"
    report(doing, 0.0)
    folder.reserve_space([copy])
    part = folder.part(copy)
    part.parent.mkdir(exist_ok=True)
    logger.info("converting %s, a %s of %s", model.path, model.format.label, readable_size(model.path.stat().st_size))
    try:
        write_gguf(model, options, model.path.stem, part, lambda done: report(doing, done))
        folder.complete([copy], source=str(model.path))
    finally:
        shutil.rmtree(folder.small, ignore_errors=True)
    logger.info("converted %s to %s", model.path, folder.path)
