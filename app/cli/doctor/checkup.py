"""All checks, in the order in which one fault explains the next."""

import json
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from importlib.util import find_spec

from app.cli.client import Client
from app.cli.doctor.api_checks import check_api
from app.cli.doctor.machine_checks import check_disk, check_limits
from app.cli.doctor.redis_checks import check_redis, check_workers
from app.cli.redis_address import use_redis_of_run
from app.cli.worker_check import check_by_worker
from app.config.finding import Finding, Level, fault, ok, warning
from app.config.loader import load_config
from app.config.own_command import own_command
from app.config.settings import Config
from app.errors import ConfigError

_WORKER_DIAGNOSIS = "workers.diagnosis"
WORKER_CHECKS = ("family", "model", "hub", "memory", "cpu", "gpu")
CHECKS = ("configuration", "redis", "workers", "api", "disk", "limits", *WORKER_CHECKS)


def examine(client: Client, *, is_own: bool, wanted: Collection[str]) -> Iterator[Finding]:
    """Give what each wanted check finds.

    Args:
        is_own: the client's address is that of the configuration.
        wanted: of `CHECKS`.
    """
    yield from _each_fault_once(_findings(client, is_own=is_own, wanted=wanted))


def _findings(client: Client, *, is_own: bool, wanted: Collection[str]) -> Iterator[Finding]:
    cure = f"docs/configuration.md and docs/families/ list the keys; then `{own_command('check-config')}`"
    try:
        config = load_config()
    except ConfigError as error:
        yield fault("configuration", error.detail, cure)
        return
    diagnosis = _begin_diagnosis() if set(WORKER_CHECKS) & set(wanted) else None
    if "configuration" in wanted:
        try:
            check_by_worker()
        except ConfigError as error:
            yield fault("configuration", error.detail, cure)
        else:
            yield ok("configuration", f"model {config.model_name} of family {config.model_family}")
    yield from _own_checks(config, client, is_own=is_own, wanted=wanted)
    if diagnosis is not None:
        yield from (finding for finding in _end_diagnosis(diagnosis) if finding.check in wanted)


def _each_fault_once(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Leave out a fault whose text is in an earlier one: a worker ends with what the check of its model finds."""
    faults: list[str] = []
    for finding in findings:
        if finding.level is Level.FAULT:
            if any(finding.text in text for text in faults):
                continue
            faults.append(finding.text)
        yield finding


def _own_checks(config: Config, client: Client, *, is_own: bool, wanted: Collection[str]) -> Iterator[Finding]:
    config = use_redis_of_run(config)
    if "redis" in wanted:
        yield from check_redis(config)
    workers = list(check_workers(config)) if "workers" in wanted else []
    yield from workers
    if "api" in wanted:
        has_faulty_worker = any(finding.level is Level.FAULT for finding in workers)
        yield from check_api(config, client, is_own=is_own, is_worker_reported=is_own and has_faulty_worker)
    if "disk" in wanted:
        yield from check_disk(config)
    if "limits" in wanted:
        yield from check_limits(config)


def _begin_diagnosis() -> "subprocess.Popen[str] | None":
    """Start the worker's part, which takes seconds; None where no worker is installed, as in the image of the API."""
    if find_spec(_WORKER_DIAGNOSIS.partition(".")[0]) is None:
        return None
    return subprocess.Popen(  # noqa: S603 - the command is ours
        [sys.executable, "-m", _WORKER_DIAGNOSIS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _end_diagnosis(diagnosis: "subprocess.Popen[str]") -> Iterator[Finding]:
    output, log = diagnosis.communicate()
    try:
        found = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        *_, reason = log.splitlines() or [f"it ended with status {diagnosis.returncode}"]
        yield warning("family", f"the worker's own checks failed: {reason}", "run `python -m workers.diagnosis`")
        return
    yield from (Finding(one["check"], Level(one["level"]), one["text"], one["cure"]) for one in found)
