"""The registry of workers: each announces its state every few seconds. `/readyz` and `/v1/models` show it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum

from app.errors import NoWorker
from app.jobs import keys
from app.jobs.redis_client import RedisClient

ALIVE_SECONDS = 15  # three renewals
FAILURE_KEPT_SECONDS = 86_400


class WorkerState(StrEnum):
    LOADING = "loading"  # fetching or loading the model; jobs may queue already
    READY = "ready"
    STALLED = "stalled"  # a thread that it needs stands still; `detail` says which
    DRAINING = "draining"
    FAILED = "failed"  # gave up; `detail` says why, and no restart will help


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """id: `<host>-<pid>-<random>`, made by `workers.main`. progress: 0-1 while a model is fetched, None when unknown.
    slots, running: sequences at most, and now.

    used_cells: cache cells held. If it is not 0 while nothing runs, cells have leaked.
    token_bytes: of a text, that one token stands for at most; 0: not known.
    adapters: those that were loaded at run time, by version: "" where it has one, else why it cannot load it.
    has_channel: it subscribes to `keys.worker_channel`, so that Redis knows whether it is there.
    device: what computes its model, for people; empty: not known.
    version: of `service_version`; empty: one from before it was announced.
    default_params: sampling parameters of a request that names none, as far as they are known.
    """

    id: str
    model: str
    family: str
    state: WorkerState
    detail: str = ""
    progress: float | None = None
    slots: int = 0
    running: int = 0
    used_cells: int = 0
    context_tokens: int = 0
    token_bytes: int = 0
    adapters: Mapping[str, str] = field(default_factory=dict)
    has_channel: bool = False
    device: str = ""
    version: str = ""
    default_params: Mapping[str, float] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.id.rsplit("-", 2)[0]


_FIELDS = frozenset(one.name for one in fields(WorkerInfo))


def announce(client: RedisClient, info: WorkerInfo) -> None:
    """Write one worker's state; a living worker repeats it within `ALIVE_SECONDS`.

    A failure takes the place of the same one of the same host: a container is started again and again.
    """
    failed = info.state is WorkerState.FAILED
    if failed:
        for other in read_workers(client):
            if replace(other, id=info.id) == info and other.host == info.host:
                retire(client, other.id)
    with client.pipeline(transaction=False) as pipe:
        pipe.sadd(keys.WORKERS, info.id)
        pipe.set(keys.worker(info.id), json.dumps(asdict(info)), ex=FAILURE_KEPT_SECONDS if failed else ALIVE_SECONDS)
        if not failed:
            pipe.set(keys.alive(info.model), info.id, ex=ALIVE_SECONDS)
        pipe.execute()


def retire(client: RedisClient, worker_id: str) -> None:
    with client.pipeline(transaction=False) as pipe:
        pipe.srem(keys.WORKERS, worker_id)
        pipe.delete(keys.worker(worker_id))
        pipe.execute()


def withdraw(client: RedisClient, model: str) -> None:
    """Admit no more jobs that would wait for a worker which has given up, unless another one of the model lives.

    One that starts at this very moment is not seen here; its next announcement lets jobs in again.
    """
    if not any(info.model == model and info.state is not WorkerState.FAILED for info in read_workers(client)):
        client.delete(keys.alive(model))


def no_worker(client: RedisClient, model: str, *, waiting: int = 0, retry_after_seconds: int | None = None) -> NoWorker:
    """Return the error for a request that no worker can serve, with the reason where one has failed."""
    failure = _failure(client, model)
    reason = "; start one and try again" if failure is None else f": {failure}"
    detail = f"no worker serves {model!r}{reason}"
    return NoWorker(detail, waiting=waiting, retry_after_seconds=retry_after_seconds)


def why_none_will_come(client: RedisClient, model: str) -> str | None:
    """Return why a job that waits would wait for ever: no worker lives, and one has given up. None: one may come."""
    if client.exists(keys.alive(model)):
        return None
    failure = _failure(client, model)
    return None if failure is None else f"no worker serves {model!r}: {failure}"


def _failure(client: RedisClient, model: str) -> str | None:
    failed = (info for info in read_workers(client) if info.model == model and info.state is WorkerState.FAILED)
    return next((f"the worker failed ({info.detail}); correct that, then start it again" for info in failed), None)


def prune_failures(client: RedisClient, model: str, host: str | None = None) -> None:
    """Remove the entries of the model's failed workers, because one of its workers is ready now.

    Args:
        host: only of this host: one of its workers begins anew there, so what the last one reported is over.
    """
    for info in read_workers(client):
        if info.model == model and info.state is WorkerState.FAILED and host in (None, info.host):
            retire(client, info.id)


def read_workers(client: RedisClient) -> list[WorkerInfo]:
    """Return every worker that announced itself lately, failed ones included; remove the entries of the others."""
    ids = sorted(client.smembers(keys.WORKERS))
    if not ids:
        return []
    states = client.mget([keys.worker(worker_id) for worker_id in ids])
    silent = [worker_id for worker_id, state in zip(ids, states, strict=True) if state is None]
    if silent:
        client.srem(keys.WORKERS, *silent)
    return [_info(json.loads(state)) for state in states if state is not None]


def connected_workers(client: RedisClient, workers: Sequence[WorkerInfo]) -> list[WorkerInfo]:
    """Return those of these workers that have a connection to Redis. One that dies loses it at once."""
    channels = [keys.worker_channel(info.id) for info in workers if info.has_channel]
    counts = dict(client.execute_command("PUBSUB NUMSUB", *channels)) if channels else {}
    return [info for info in workers if not info.has_channel or counts.get(keys.worker_channel(info.id))]


def _info(data: dict[str, object]) -> WorkerInfo:
    known = {name: value for name, value in data.items() if name in _FIELDS}  # a newer worker may announce more
    return WorkerInfo(**{**known, "state": WorkerState(str(data["state"]))})  # type: ignore[arg-type]
