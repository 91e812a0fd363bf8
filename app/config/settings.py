"""The keys of the configuration: one field for each, with its type, what it means, what is accepted, and its default.

Times are seconds, sizes bytes. `app.config.loader` reads the file and the environment, and nothing else does.
`python -m docs.configuration_reference` prints the keys as a page of the documentation.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from marshmallow import validate

from app.config.adapters import AdaptersConfig
from app.config.batches import BatchesConfig
from app.config.jobs import JobsConfig
from app.config.ledger import AuditConfig, UsageConfig
from app.config.observability import LogConfig, MetricsConfig, TracesConfig
from app.config.schema import (
    Aliases,
    AutoNumber,
    Devices,
    Folder,
    FreeForm,
    Texts,
    flag,
    signing_secret,
    text,
    whole_number,
)
from app.config.server import ServerConfig

DEFAULT_MODEL = "default"  # a name of the served model in requests, as in SGLang, and in `model_aliases`
UNKNOWN_FIELDS = ("refuse", "ignore")
_KEYS = "a list of texts, each a key or sha256: and 64 hex digits (quote a key that looks like a number)"
_KEY = validate.Regexp(r"^(sha256:[0-9a-fA-F]{64}$|(?!sha256:))")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """slots, gpus: None = auto."""

    slots: Annotated[
        int | None,
        AutoNumber(
            "Sequences in one batch. `auto`: as many caches of `n_ctx` tokens as fit into half of the free memory (of "
            "the machine and of each cgroup of the worker, minus a mapped model; of the GPUs for the layers there), at "
            "most 32.",
            1,
            1024,
        ),
    ] = None
    drain_seconds: Annotated[
        int,
        whole_number(
            "How long running jobs may continue after a worker is asked to stop; then they return to the queue. Keep a "
            "container's grace period 10 s above it.",
            0,
        ),
    ] = 20
    speculation: Annotated[
        bool,
        flag(
            "Guess tokens that repeat the prompt or the text, and check several in one step, where that is faster. The "
            "tokens are the same as without it, except for rounding (decision 0016)."
        ),
    ] = True
    nice: Annotated[
        int,
        whole_number(
            "The niceness of the threads that compute a model on CPUs (Linux): the API, Redis and other programs get a "
            "CPU before them, so that streams are not delayed. Set 0 if other programs use all CPUs and the model "
            "needs its share (decision 0024).",
            0,
            19,
        ),
    ] = 10
    stall_seconds: Annotated[
        int,
        whole_number(
            "How long one step of the model may take, or the consumer may stand still. Then the worker is `stalled`: "
            "not ready, and its health check fails.",
            5,
        ),
    ] = 60
    metrics_port: Annotated[
        int | None,
        whole_number(
            "The port, at `server.host`, where this worker shows its metrics; each worker of a machine needs its own. "
            "null: none.",
            1,
            65_535,
            nullable=True,
        ),
    ] = None
    gpus: Annotated[str | None, Devices("The GPUs that a worker may use: `0`, `0,1` or `[0, 1]`.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    ttl: Annotated[
        int,
        whole_number(
            "How long the response to a greedy or seeded request, or to texts to embed, is used for equal requests; "
            "never longer than its job is kept. 0: never.",
            0,
        ),
    ] = 0
    across_keys: Annotated[
        bool,
        flag(
            "Share computed prefixes and cached responses between all API keys. Then the holder of one key can find "
            "out what others send, by `usage.cached_tokens` and by time. false: only inside a tenant, that is under "
            "the keys of one group, or under one key without a group (decision 0044)."
        ),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesConfig:
    max_bytes: Annotated[
        int,
        whole_number("The largest file; a larger one gets 413. Files are kept in Redis' memory.", 1024),
    ] = 32 * 1024 * 1024
    max_bytes_per_owner: Annotated[
        int,
        whole_number(
            "What all files of one API key, and the results of its batches, may hold together. Another file gets 413, "
            "the lines that are left of a running batch get the error `storage_full`. Each counts as 16 KiB at least.",
            1024,
        ),
    ] = 512 * 1024 * 1024
    ttl: Annotated[int, whole_number("How long a file is kept at most, and a batch after its end.", 1)] = 604_800


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    api_keys: Annotated[
        tuple[str, ...],
        Texts(
            "API keys of this service, each as it is or as `sha256:` and its digest in hex. They have every scope but "
            "`admin`. With a key here, or one made by `llm-api keys create`, each request needs "
            "`Authorization: Bearer KEY`, except those to `/healthz`, `/check`, `/readyz`, the page (`/`) and the "
            "reference (`/docs`, `/openapi.json`).",
            _KEYS,
            _KEY,
        ),
    ] = field(default=(), repr=False)
    admin_keys: Annotated[
        tuple[str, ...],
        Texts(
            "The same for keys with every scope, which also manage keys and see what belongs to other keys.",
            _KEYS,
            _KEY,
        ),
    ] = field(default=(), repr=False)
    required: Annotated[
        bool,
        flag(
            "Each request needs a key, and the API does not start while there is none. false: without any key every "
            "client can use the service."
        ),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIConfig:
    unknown_fields: Annotated[
        str,
        text(
            "What happens to a request under `/v1` that has fields that this API does not know. `refuse`: 400, which "
            "names the field. `ignore`: the fields are ignored, and the header `Ignored-Fields` of the response names "
            "them.",
            "refuse or ignore",
            validate.OneOf(UNKNOWN_FIELDS),
        ),
    ] = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    unknown_params: Annotated[
        str,
        text(
            "What happens to a request to `/generate` or `/agenerate` that has parameters that this API, or the family "
            "`llama`, does not know. `refuse`: 422, which names the parameter. `ignore`: they are ignored, as the "
            "original LLM API did, and the header `Ignored-Fields` of the response names them.",
            "refuse or ignore",
            validate.OneOf(UNKNOWN_FIELDS),
        ),
    ] = "refuse"
    agenerate: Annotated[
        str,
        text(
            "What `/agenerate` responds to a request that does not ask for one of the two. `job`: the accepted job. "
            "`stream`: server-sent events, as in the original LLM API.",
            "job or stream",
            validate.OneOf(("job", "stream")),
        ),
    ] = "job"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhooksConfig:
    secret: Annotated[
        str | None,
        text(
            "Signs webhooks. null: requests that ask for a webhook are rejected.",
            "whsec_ and the base64 of 24 to 64 random bytes, or null",
            signing_secret,
            nullable=True,
        ),
    ] = field(default=None, repr=False)
    allow_private: Annotated[bool, flag("Allow webhooks to addresses that are not public.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration. `model_name` is never None: `app.config.loader` derives it where no source sets it."""

    models_dir: Annotated[Path, Folder("Where downloaded models are stored (`/models` in the containers).")] = Path(
        "./models"
    )
    model_family: Annotated[
        str,
        text(
            "The engine: one of the families, or your own as `package.module:Engine`.",
            "llama, huggingface, openai, gptq_llama or package.module:Engine",
            validate.Regexp(r"^(\w+|\w+(\.\w+)*:\w+(\.\w+)*)$"),
        ),
    ] = "llama"
    model_name: Annotated[
        str,
        text(
            "The public name of the model. null: derived from `setup_params`, that is the `filename` of a GGUF, else "
            "the last part of `repo_id`, `path` or `model` without the ending of a file of weights, else the family.",
            "a text, or null to derive it from setup_params",
            nullable=True,
        ),
    ]
    model_aliases: Annotated[
        dict[str, Any],
        Aliases(
            'Other names by which requests may ask for the model, for example `{"gpt-4o": default, "*": default}`. `*` '
            "stands for any characters. A request without a name, or with an empty one, always means the model.",
            "a mapping of names to default or the served name",
        ),
    ] = field(default_factory=dict)
    setup_params: Annotated[
        dict[str, Any],
        FreeForm(
            "Where the model comes from: `repo_id`, `filename`, `revision`, `token`; or `path`; or `package` and "
            "`filename`; or `base_url`, `model`, `api_key`. `convert` is for files from before GGUF (family `llama`).",
            "a mapping with texts as keys: repo_id + filename, or path, or package + filename",
        ),
    ] = field(default_factory=dict)
    model_params: Annotated[
        dict[str, Any],
        FreeForm(
            "How the family loads the model, for example `n_ctx`.", "a mapping of parameter names (texts) to values"
        ),
    ] = field(default_factory=dict)
    data_dir: Annotated[
        Path,
        Folder("Where the embedded Valkey stores its append-only file, for this user only; one `make run` per folder."),
    ] = Path("./data")
    redis_url: Annotated[
        str | None,
        text(
            "Where Redis is. null: `make run` starts a Valkey behind a Unix socket in `data_dir`.",
            "redis://…, rediss://… or unix://…, or null for an embedded Valkey",
            validate.Regexp(r"^(rediss?|unix)://."),
            nullable=True,
        ),
    ] = field(default=None, repr=False)  # may contain a password
    log: LogConfig = field(default_factory=LogConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    traces: TracesConfig = field(default_factory=TracesConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    jobs: JobsConfig = field(default_factory=JobsConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    adapters: AdaptersConfig = field(default_factory=AdaptersConfig)
    files: FilesConfig = field(default_factory=FilesConfig)
    batches: BatchesConfig = field(default_factory=BatchesConfig)
    usage: UsageConfig = field(default_factory=UsageConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    webhooks: WebhooksConfig = field(default_factory=WebhooksConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    openai: OpenAIConfig = field(default_factory=OpenAIConfig)
