"""A model on the Hugging Face Hub, and which files of its repository a model family loads."""

import fnmatch
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from huggingface_hub import constants

from app.errors import ConfigError, ModelUnavailable
from workers.suggestions import closest

_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
# Left out of a whole repository: other runtimes' copies of the weights, and pickles where safetensors hold the same.
_OTHER_RUNTIMES = ("*.gguf", "*.onnx*", "*.h5", "*.msgpack", "*.tflite", "*.ot", "onnx/*", "openvino/*", "original/*")
_PICKLES = ("*pytorch_model*.bin", "*.pt", "*.pth")
_TOKENIZERS = (
    "*token*.json",  # tokenizer, tokenizer_config, special_tokens_map, added_tokens
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "config.json",  # names the class of the tokenizer
    "*.py",
)
_CONFIGURATION = (*_TOKENIZERS, "generation_config.json", "quantize_config.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """One repository at one revision, and what is wanted of it.

    Args:
        filename: one file, with the other pieces of a split GGUF file. None: the whole repository.
        token: None leaves it to huggingface_hub to find `HF_TOKEN` or a stored login.
        single_file: the family loads one file, so a `filename` is required.
        tokenizer_only: only the tokenizer's files.
        with_configuration: beside `filename`, the configuration and the tokenizer.
        section: of the configuration, which names the source; for messages.
    """

    repo_id: str
    filename: str | None = None
    revision: str = "main"
    token: str | None = field(default=None, repr=False)
    single_file: bool = False
    tokenizer_only: bool = False
    with_configuration: bool = False
    section: str = "setup_params"

    @property
    def endpoint(self) -> str:
        """The address of the Hub. huggingface_hub reads the variable once, at its import; this reads it at each use."""
        return os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT

    @property
    def label(self) -> str:
        """The name of the model in messages."""
        return self.filename or self.repo_id

    @property
    def key(self) -> list[str]:
        """What names the folder of this download. Another key is another folder, and so another download."""
        key = [self.repo_id, self.filename or "", self.revision]
        key += ["tokenizer"] if self.tokenizer_only else []
        key += ["configuration"] if self.with_configuration and self.filename else []
        return key

    def wanted_files(self, names: Sequence[str]) -> list[str]:
        """Choose from all file names of the repository.

        Raises:
            ConfigError, ModelUnavailable: the repository lacks what is wanted.
        """
        plain = [name for name in names if not name.startswith((".", "/")) and ".." not in PurePosixPath(name).parts]
        if self.tokenizer_only:
            wanted = [name for name in plain if _matches(name, _TOKENIZERS)]
            if not wanted:
                raise ModelUnavailable(f"{self.repo_id} holds no tokenizer: check setup_params.tokenizer_repo_id")
            return wanted
        if self.filename is None:
            return self._whole_model(plain)
        beside = [name for name in plain if self.with_configuration and _matches(name, _CONFIGURATION)]
        wanted = list(dict.fromkeys([*_with_other_shards(self.filename), *beside]))
        for name in wanted:
            if name not in names:
                shipped = closest(name, (other for other in plain if other.endswith(".gguf")))
                hint = f"; it has {shipped}" if shipped else ""
                raise ModelUnavailable(f"{self.repo_id} has no file {name}: correct {self.section}.filename{hint}")
        return wanted

    def _whole_model(self, names: Sequence[str]) -> list[str]:
        wanted = [name for name in names if not _matches(name, _OTHER_RUNTIMES)]
        if any(name.endswith(".safetensors") for name in wanted):
            wanted = [name for name in wanted if not _matches(name, _PICKLES)]
        has_weights = any(_matches(name, _WEIGHTS) for name in wanted)
        gguf = [name for name in names if name.endswith(".gguf")]
        if self.single_file or (gguf and not has_weights):
            hint = f"has {closest('', gguf)}" if gguf else "has no .gguf file"
            raise ConfigError(f"{self.section}.filename is missing: {self.repo_id} {hint}")
        if not has_weights:
            raise ModelUnavailable(f"{self.repo_id} holds no weights that can be loaded: check {self.section}.repo_id")
        return wanted


def _with_other_shards(filename: str) -> list[str]:
    """llama.cpp loads a split model by the name of one piece, and wants the others beside it."""
    shard = _SHARD.fullmatch(filename)
    if not shard:
        return [filename]
    count = int(shard["count"])
    return [f"{shard['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
