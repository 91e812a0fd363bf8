"""The configuration: read once from `config.yaml` and the environment, validated, then frozen.

Times are seconds, sizes bytes. `app.config.loader` reads it; nothing else reads the environment.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    host: str = "0.0.0.0"  # noqa: S104 - a server is meant to be reached
    port: int = 8000
    processes: int = 2  # gunicorn workers
    threads: int = 512  # per process; each waiting client holds one
    max_body_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """slots: sequences in one batch, None = auto. gpus: which devices a worker may see, None = auto.

    drain_seconds: what running jobs get to finish when the worker is told to stop; then they go back into the queue.
    speculation: guess tokens that repeat the prompt or the text, where that is faster.
    nice: of the threads that compute the model on CPUs, 0 to 19.
    """

    slots: int | None = None
    gpus: str | None = None
    drain_seconds: int = 20
    speculation: bool = True
    nice: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsConfig:
    """ttl: how long a finished job is kept. timeout: longest running time of a job."""

    ttl: int = 86_400
    timeout: int = 600
    max_attempts: int = 3
    max_queued: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """ttl: how long the answer to a deterministic request answers the same request again, 0 = not at all; never longer
    than its job is kept. across_keys: whoever asks; else only requests under one API key share answers.
    """

    ttl: int = 0
    across_keys: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesConfig:
    """Files live in Redis. max_bytes: of one. ttl: how long one is kept, and a batch after its end."""

    max_bytes: int = 32 * 1024 * 1024
    ttl: int = 604_800


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    api_keys: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhooksConfig:
    """secret: signs them; None: there are none. allow_private: also to addresses that are not public."""

    secret: str | None = field(default=None, repr=False)
    allow_private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All of it. `model_name` is the public name, derived from `setup_params` where the file gives none.

    `redis_url` None means that `make run` starts an embedded Valkey and tells its processes where it listens.
    """

    model_name: str
    models_dir: Path = Path("./models")
    model_family: str = "llama"
    setup_params: dict[str, Any] = field(default_factory=dict)
    model_params: dict[str, Any] = field(default_factory=dict)
    data_dir: Path = Path("./data")
    redis_url: str | None = field(default=None, repr=False)  # may hold a password
    server: ServerConfig = field(default_factory=ServerConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    jobs: JobsConfig = field(default_factory=JobsConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    files: FilesConfig = field(default_factory=FilesConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    webhooks: WebhooksConfig = field(default_factory=WebhooksConfig)
