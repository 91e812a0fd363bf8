"""The API at its address: whether it responds, serves, and is the same version."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from app.access.key_check import cure_of_open_service, warnings
from app.cli.client import Client, RequestFailed
from app.cli.port_owner import port_owner
from app.config.finding import Finding, fault, ok, warning
from app.config.own_command import own_command
from app.config.settings import Config
from app.config.variables import PORT
from app.jobs.version import service_version

_CHECK = "api"


def check_api(config: Config, client: Client, *, is_own: bool, is_worker_reported: bool) -> Iterator[Finding]:
    """Look at the API.

    Args:
        is_own: the address is that of the run or of the configuration, so it is of this machine.
        is_worker_reported: a fault of its worker is in the list already.
    """
    try:
        ready = client.get("/readyz")
    except RequestFailed as error:
        if error.code == "no_worker":
            yield _waiting(client, error, is_worker_reported=is_worker_reported)
        else:
            yield _failure(client, error, is_own=is_own)
    else:
        if "model" not in ready:  # it shows no more to a request without a key
            yield ok(_CHECK, f"{client.url} is ready; with an API key (LLM_API_KEY) its version is checked too")
        else:
            yield ok(_CHECK, f"{client.url} serves {ready['model']}")
        if "model" in ready and ready.get("version") != service_version():
            theirs = ready.get("version", "an older version")
            cure = "restart API and workers from the same version: they share records and scripts"
            yield fault(_CHECK, f"{client.url} runs {theirs}, this is {service_version()}", cure)
    if is_own and config.redis_url is not None and warnings(config, wait_seconds=0.0):
        text = f"there is no API key: every client that reaches port {_port(client)} of this machine may use the model"
        yield warning(_CHECK, text, cure_of_open_service())


def _waiting(client: Client, error: RequestFailed, *, is_worker_reported: bool) -> Finding:
    if is_worker_reported:
        return warning(_CHECK, f"{client.url} responds; it is ready once the fault of its worker is corrected")
    cure = f"wait for it if it loads; else `{own_command('doctor')}` on the machine of the workers names the cure"
    return fault(_CHECK, f"{client.url} responds, but is not ready: {error.message}", cure)


def _failure(client: Client, error: RequestFailed, *, is_own: bool) -> Finding:
    owner = port_owner(_port(client)) if is_own else None
    if error.status in (401, 403):
        return fault(_CHECK, f"{client.url}: {error.message}")
    if error.code:
        return fault(_CHECK, f"{client.url}: {error.message}")
    if owner is not None:
        cure = f"stop it, or choose another port: {PORT}=8001 {own_command('run')}"
        return fault(_CHECK, f"port {_port(client)} is taken by another program ({owner})", cure)
    if error.status is None and is_own:
        text = f"nothing listens at {client.url}, where the configuration has the service"
        start, look = own_command("run"), own_command("doctor")
        cure = f"start it: `{start}`; if it has another port, name that: `{PORT}=8001 {look}`"
        return warning(_CHECK, text, cure)
    return fault(_CHECK, error.message)


def _port(client: Client) -> int:
    return urlsplit(client.url).port or 80
