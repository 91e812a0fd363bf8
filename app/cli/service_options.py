"""The options of commands that use a running service: where it is, and with which API key.

Without them it is the service of the configuration: `--url`, else `LLM_API_URL`, else where the run of `data_dir`
listens, else the port of `server.port`. An API key of the configuration is sent to that service only, never to one that
was named.
"""

import functools
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import click

from app.cli.client import Client

DEFAULT_URL = "http://localhost:8000"


class _Url(click.ParamType[str]):
    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value) if "://" in str(value) else f"http://{value}"
        try:
            parts = urlsplit(text)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url or not text.isprintable() or " " in text:
            self.fail("expected an address such as http://localhost:8000", param, ctx)
        return text.rstrip("/")


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--url` and `--api-key`; it gets a `Client` as its first argument."""

    @click.option(
        "--url",
        type=_Url(),
        envvar="LLM_API_URL",
        show_envvar=True,
        metavar="URL",
        help="Where the service is; else that of the configuration.",
    )
    @click.option(
        "--api-key",
        envvar="LLM_API_KEY",
        show_envvar=True,
        metavar="KEY",
        help="The variable keeps it out of the list of processes.",
    )
    @functools.wraps(command)
    def with_client(*args: Any, url: str | None, api_key: str | None, **options: Any) -> Any:
        return command(client_of(url, api_key), *args, **options)

    return with_client


def client_of(url: str | None, api_key: str | None) -> Client:
    """Return the client of the service that is named, or of the one that the configuration describes."""
    if url is not None:
        return Client(url, api_key)
    from app.access.secret import plain_key
    from app.cli.run_url import find_url
    from app.config.loader import load_config
    from app.errors import ConfigError

    try:
        url, config = find_url(), load_config()
    except ConfigError:  # this folder is no service's: check-config is there to say what is wrong with it
        return Client(DEFAULT_URL, api_key)
    return Client(url, api_key or plain_key(config.auth))
