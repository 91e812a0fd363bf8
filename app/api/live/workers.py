"""The workers of the model as a page shows them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from app.api.live.queue import QueueReading
from app.jobs.redis_client import RedisClient
from app.jobs.worker_registry import WorkerInfo, connected_workers, read_workers


def read_model_workers(client: RedisClient, model: str) -> list[Mapping[str, Any]]:
    """Return the workers of a model. `connected`: Redis has its connection; a worker that dies loses it at once.

    Raises redis.RedisError.
    """
    workers = [info for info in read_workers(client) if info.model == model]
    connected = {info.id for info in connected_workers(client, workers)}
    return [_row(info, info.id in connected) for info in workers]


def show(workers: list[Mapping[str, Any]], queue: QueueReading) -> Mapping[str, Any]:
    """Return the sections of the view, with the tokens per second and the attempts of each worker's jobs."""
    speeds: dict[str, float] = {}
    again: dict[str, int] = {}
    for line in queue.window.active:
        speeds[line.worker] = speeds.get(line.worker, 0.0) + queue.speeds[line.id]
        again[line.worker] = again.get(line.worker, 0) + (line.attempt > 1)
    return {
        "workers": [
            {**worker, "speed": round(speeds.get(worker["id"], 0.0), 1), "taken_over": again.get(worker["id"], 0)}
            for worker in workers
        ]
    }


def _row(info: WorkerInfo, is_connected: bool) -> Mapping[str, Any]:
    row = asdict(info)
    return row | {"host": info.host, "connected": is_connected, "cells": info.slots * info.context_tokens}
