"""`llm-api keys`: API keys in Redis. They are made on the machine of the service, so the first one needs no other."""

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
import redis
from marshmallow import ValidationError

from app.access.api_key import ApiKey, Scope
from app.access.authentication import is_key_configured
from app.access.key_store import KeyStore
from app.api.request_parser import invalid_request
from app.api.schemas.keys import CreateKeySchema, KeySchema, UpdateKeySchema, wanted_key
from app.cli.key_options import Seconds, fields_of, key_options
from app.cli.known_keys import every_key, first_key_note, found, last_key_note, usable, without
from app.cli.output import json_option, write_json, write_lines, write_table
from app.cli.redis_address import redis_for_command
from app.cli.typed_options import with_options_named
from app.config.counted import counted
from app.config.loader import load_config
from app.config.own_command import own_command
from app.errors import RequestError
from app.jobs.redis_client import connect

_SCHEMA = KeySchema()


class _Unreachable(click.ClickException):
    exit_code = os.EX_UNAVAILABLE


@click.group
def keys() -> None:
    """Make, list, change, replace and revoke API keys. A change counts within a second on every API process."""


@keys.command
@click.argument("name")
@key_options
@json_option
def create(name: str, as_json: bool, **options: Any) -> None:
    """Make an API key, and print it. It is shown this once: Redis keeps its digest only."""
    with _store() as store:
        was_open = not (is_key_configured(load_config().auth) or store.are_there_any())
        key, secret = store.create(wanted_key(CreateKeySchema().load({"name": name, **fields_of(options)})))
    _show_secret(key, secret, as_json=as_json)
    if was_open:
        is_admin = Scope.ADMIN in key.scopes
        click.echo(first_key_note(secret if sys.stdout.isatty() else "KEY", is_admin=is_admin), err=True)


@keys.command("list")
@click.option("--revoked", is_flag=True, help="Those that are revoked, too.")
@json_option
def list_keys(revoked: bool, as_json: bool) -> None:
    """List the API keys, oldest first. Those of the configuration are not among them."""
    with _store() as store:
        every = list(every_key(store))
    listed = [key for key in every if revoked or key.revoked_at is None]
    if hidden := len(every) - len(listed):
        click.echo(f"not listed: {counted(hidden, 'revoked key')} (--revoked)", err=True)
    if as_json:
        write_json([_document(key) for key in listed])
        return
    write_table(
        ["NAME", "GROUP", "SCOPES", "#WEIGHT", "CREATED", "LAST USED", "EXPIRES", "REVOKED", "ID"],
        (
            (
                key.name,
                key.group,
                ",".join(_document(key)["scopes"]),
                f"{key.weight:g}",
                _moment(key.created_at),
                _moment(key.last_used_at),
                _moment(key.expires_at),
                _moment(key.revoked_at),
                key.id,
            )
            for key in listed
        ),
        empty="there is no API key" if not hidden else "there is no other API key",
    )


@keys.command
@click.argument("name_or_id", metavar="NAME")
@json_option
def show(name_or_id: str, as_json: bool) -> None:
    """Show an API key: what it may do, and when it was last used. NAME may be an id, or the name of a revoked key."""
    with _store() as store:
        key = found(store, name_or_id)
    if as_json:
        write_json(_document(key))
    else:
        _show(key)


@keys.command
@click.argument("name_or_id", metavar="NAME")
@click.option("--name", metavar="NEW", help="Another name.")
@key_options
@json_option
def update(name_or_id: str, name: str | None, as_json: bool, **options: Any) -> None:
    """Change what the options name, and nothing else. `none` stands for the default: no limit, no group, no end."""
    changes = fields_of(options) | ({} if name is None else {"name": name})
    with _store() as store:
        key = store.update(usable(store, name_or_id).id, UpdateKeySchema().load(changes))
    if as_json:
        write_json(_document(key))
    else:
        _show(key)


@keys.command
@click.argument("name_or_id", metavar="NAME")
@click.option("--grace", type=Seconds(), default=0, metavar="TIME", help="How long the last secret stays valid: 24h.")
@json_option
def rotate(name_or_id: str, grace: int, as_json: bool) -> None:
    """Give an API key another secret, and print it. It keeps its jobs, limits and usage."""
    with _store() as store:
        key, secret = store.rotate(usable(store, name_or_id).id, grace)
    _show_secret(key, secret, as_json=as_json)


@keys.command
@click.argument("names_or_ids", metavar="NAME...", nargs=-1)
@click.option("--forget", is_flag=True, help="Do not list them either. Where no key is left, requests need none.")
@click.option("--all-revoked", is_flag=True, help="With --forget: those that are revoked already, beside NAME...")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal before the last key is revoked.")
def revoke(names_or_ids: tuple[str, ...], forget: bool, all_revoked: bool, yes: bool) -> None:
    """Revoke API keys: they open nothing from now on. What they have begun continues. NAME may be an id."""
    if all_revoked and not forget:
        raise click.UsageError("--all-revoked is for --forget: these keys are revoked already")
    if not (names_or_ids or all_revoked):
        raise click.UsageError("name a key; `keys list` shows them")
    with _store() as store:
        auth, before = load_config().auth, list(every_key(store))
        ending = {key.id: key for key in (found(store, name) for name in names_or_ids)}
        ending |= {key.id: key for key in before if all_revoked and key.revoked_at is not None}
        note = last_key_note(auth, without(before, ending, forget=forget))
        is_asked = note and not last_key_note(auth, before) and not yes and sys.stdin.isatty()
        if is_asked and not click.confirm(f"Afterwards: {note}\nRevoke?", err=True):
            raise click.ClickException("nothing was revoked")
        for key in ending.values():
            store.revoke(key.id, forget=forget)
            click.echo(f"{key.name} ({key.id}) is revoked{' and forgotten' if forget else ''}")
    if note and not is_asked:
        click.echo(note, err=True)


@contextlib.contextmanager
def _store() -> Iterator[KeyStore]:
    """Raise errors that click prints as one line."""
    try:
        with redis_for_command(load_config()) as url, contextlib.closing(connect(url)) as client:
            yield KeyStore(client)
    except ValidationError as error:
        wrong = invalid_request(error.messages_dict)
        raise click.UsageError(with_options_named(wrong.detail, wrong.errors)) from None
    except RequestError as error:
        raise click.ClickException(error.detail) from None
    except redis.RedisError as error:
        cure = f"check redis_url, and that Redis or {own_command('run')} is up"
        raise _Unreachable(f"Redis does not respond ({type(error).__name__}); {cure}") from None


def _document(key: ApiKey) -> dict[str, Any]:
    return {"id": key.id, **_SCHEMA.dump(key)}


def _show(key: ApiKey) -> None:
    limits = {name.replace("_", " "): value for name, value in _document(key)["limits"].items()}
    write_lines(
        {
            "id": key.id,
            "name": key.name,
            "group": key.group or None,
            "scopes": ", ".join(_document(key)["scopes"]),
            "models": ", ".join(key.models) or "all",
            "weight": f"{key.weight:g}",
            "max priority": key.max_priority,
            **limits,
            "created": _moment(key.created_at),
            "last used": _moment(key.last_used_at),
            "expires": _moment(key.expires_at),
            "revoked": _moment(key.revoked_at),
        }
    )


def _show_secret(key: ApiKey, secret: str, *, as_json: bool) -> None:
    """The secret alone goes to stdout, for a shell that assigns it."""
    if as_json:
        write_json(_document(key) | {"key": secret})
        return
    click.echo(secret)
    click.echo(f"The key {key.name} ({key.id}) is shown here once; Redis keeps its digest only.", err=True)


def _moment(seconds: float | None) -> str | None:
    """Return a time in the time zone of this machine."""
    return None if seconds is None else f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"
