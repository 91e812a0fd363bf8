"""The options of commands that generate text: how the model chooses its tokens, and how the job is run."""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from app.jobs.sampling import parameters

_AS_MANY_AS_FIT = -1


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--max-tokens`, `--temperature`, `--seed` and `--param`; it gets them as `params`."""

    @click.option(
        "--max-tokens", type=click.IntRange(min=-1), metavar="N", help="Most tokens of an answer; -1: as many as fit."
    )
    @click.option("--temperature", type=click.FloatRange(min=0), metavar="T", help="0 is greedy.")
    @click.option("--seed", type=int, metavar="N", help="The same seed gives the same text.")
    @click.option(
        "--param",
        "pairs",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any other sampling parameter (docs/http-api.md), its value as JSON or a text. May be repeated.",
    )
    @functools.wraps(command)
    def with_params(
        *args: Any,
        max_tokens: int | None,
        temperature: float | None,
        seed: int | None,
        pairs: Sequence[str],
        **options: Any,
    ) -> Any:
        named = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        params = {name: value for name, value in named.items() if value is not None} | dict(map(_pair, pairs))
        return command(*args, params=params, **options)

    return with_params


def up_to_the_context(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with as many tokens as fit into the context, unless they name a limit."""
    names = {"max_tokens", *parameters()["max_tokens"][1].aliases}
    return params if names & params.keys() else {**params, "max_tokens": _AS_MANY_AS_FIT}


def _pair(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise click.BadParameter("expected NAME=VALUE, such as top_p=0.9", param_hint="--param")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
