"""The options that describe an API key, and the fields of `/admin/keys` that they stand for."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

NONE = "none"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_LIMITS = {
    "requests_per_minute": "Requests per minute.",
    "tokens_per_minute": "Tokens per minute.",
    "concurrent_jobs": "Jobs that have not ended: that wait or run.",
    "waiting_jobs": "Jobs that wait at the same time.",
    "max_tokens": "Tokens that one request may generate.",
    "tokens_per_day": "Tokens per day of UTC.",
    "tokens_per_month": "Tokens per month of UTC.",
}


class Seconds(click.ParamType[int]):
    """A time such as 24h, or a number of seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _DURATION.fullmatch(str(value))
        if match is None and not str(value).isdecimal():
            self.fail("expected a time such as 30m, 24h or 90d", param, ctx)
        return int(value) if match is None else int(match[1]) * _SECONDS[match[2]]


class _End(click.ParamType[str | None]):
    """A time from now on, or a moment; `none`: never."""

    name = "end"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | None:
        if value == NONE:
            return NONE
        if match := _DURATION.fullmatch(str(value)):
            moment = datetime.now(UTC) + timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
        else:
            try:
                moment = datetime.fromisoformat(str(value)).astimezone()
            except (ValueError, OverflowError):
                self.fail("expected a time such as 90d, 2027-01-31 or 2027-01-31T12:00:00Z, or none", param, ctx)
        return moment.isoformat()


class _Limit(click.ParamType[int | str]):
    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == NONE:
            return NONE
        if not str(value).isdecimal():
            self.fail("expected a whole number, or none", param, ctx)
        return int(value)


def key_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a key; it gets their values by keyword, None for those that were left out."""
    options = [
        click.option("--group", metavar="GROUP", help="Keys of a group share one turn and computed prefixes."),
        click.option(
            "--scope",
            "scopes",
            multiple=True,
            metavar="SCOPE",
            help="inference, jobs, batches or admin; may be repeated. Default: all but admin.",
        ),
        click.option(
            "--model",
            "models",
            multiple=True,
            metavar="NAME",
            help="A model or LoRA adapter that it may ask for; may be repeated. Default: all.",
        ),
        click.option("--weight", type=float, metavar="NUMBER", help="Its share of a busy service. Default: 1."),
        click.option("--max-priority", metavar="PRIORITY", help="high, normal or low. Default: high."),
        *(
            click.option(f"--{name.replace('_', '-')}", name, type=_Limit(), metavar="NUMBER", help=about)
            for name, about in _LIMITS.items()
        ),
        click.option("--expires", "expires_at", type=_End(), metavar="TIME", help="90d, or a date. Default: never."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def fields_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the options that were given. `none` becomes null: the default."""
    scalars = ("group", "weight", "max_priority", "expires_at")
    fields = {name: options[name] for name in scalars if options[name] is not None}
    fields |= {name: list(options[name]) for name in ("scopes", "models") if options[name]}
    limits = {name: _null(options[name]) for name in _LIMITS if options[name] is not None}
    if limits:
        fields["limits"] = limits
    if fields.get("models") == [NONE]:
        fields["models"] = None
    return {name: _null(value) for name, value in fields.items()}


def _null(value: Any) -> Any:
    return None if value == NONE else value
