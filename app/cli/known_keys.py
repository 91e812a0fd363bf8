"""The API keys of a Redis by the names that people type, and what the first and the last of them change."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from app.access.api_key import ApiKey
from app.access.key_store import KeyStore
from app.config.own_command import own_command
from app.config.settings import AuthConfig
from app.errors import Conflict, KeyNotFound

_PAGE = 1000


def every_key(store: KeyStore) -> Iterator[ApiKey]:
    """Give each key, the revoked ones too, oldest first."""
    after = None
    has_more = True
    while has_more:
        page, has_more = store.list_keys(limit=_PAGE, after=after, with_revoked=True)
        yield from page
        after = page[-1].id if page else None


def found(store: KeyStore, name_or_id: str) -> ApiKey:
    """Return the key with this id or name, else the revoked one that had the name.

    Raises:
        KeyNotFound: there is none.
        Conflict: several revoked keys had the name.
    """
    try:
        return store.read(name_or_id)
    except KeyNotFound:
        revoked = [key for key in every_key(store) if key.name == name_or_id]
        if not revoked:
            raise _not_found(name_or_id) from None
    if revoked[1:]:
        ids = ", ".join(key.id for key in revoked)
        raise Conflict(f"{len(revoked)} revoked keys had the name {name_or_id!r}; name one by its id: {ids}")
    return revoked[0]


def usable(store: KeyStore, name_or_id: str) -> ApiKey:
    """Return the key with this id or name. Raises KeyNotFound, for a revoked one too."""
    try:
        return store.read(name_or_id)
    except KeyNotFound:
        if any(key.name == name_or_id for key in every_key(store)):
            cure = f"`{own_command('keys list --revoked')}` shows it, and `keys create` makes another"
            raise KeyNotFound(f"the API key {name_or_id!r} is revoked; {cure}") from None
        raise _not_found(name_or_id) from None


def _not_found(name_or_id: str) -> KeyNotFound:
    return KeyNotFound(f"no API key has the name or id {name_or_id!r}; `{own_command('keys list')}` shows them")


def first_key_note(secret: str, *, is_admin: bool) -> str:
    """Return what the first key changes, and how to use it. secret: as it is shown."""
    how = "this is one" if is_admin else f"`{own_command('keys create NAME --scope admin')}` makes one"
    return (
        "Every request needs a key from now on; what was made without one is shown to keys of the scope admin only: "
        f"{how}.\n"
        f"Use it: export LLM_API_KEY={secret} for llm-api, -H 'Authorization: Bearer {secret}' for curl."
    )


def without(keys: Sequence[ApiKey], ending: Collection[str], *, forget: bool) -> Sequence[ApiKey]:
    """Return the keys as they are once those with these ids are revoked."""
    left = [key for key in keys if key.id not in ending]
    revoked = [replace(key, revoked_at=time.time()) for key in keys if key.id in ending and not forget]
    return [*left, *revoked]


def last_key_note(config: AuthConfig, keys: Sequence[ApiKey]) -> str | None:
    """Return what it means that no key is left that opens the service; None: there is one.

    Args:
        keys: all of Redis, the revoked ones too.
    """
    now = time.time()
    is_usable = any(key.revoked_at is None and (key.expires_at is None or key.expires_at > now) for key in keys)
    if is_usable or config.api_keys or config.admin_keys:
        return None
    if not keys and not config.required:
        return "No key is left, so requests need none from now on."
    make = own_command("keys create NAME --scope admin")
    way_out = f"No key is left that opens the service: every request is refused. `{make}` makes another"
    if config.required:
        return f"{way_out}."
    expired = "".join(f" {key.name}" for key in keys if key.revoked_at is None)
    forget_all = own_command(f"keys revoke --forget --all-revoked{expired}")
    return f"{way_out};\n`{forget_all}` lets requests need no key, as before the first one."
