"""Errors in fields of a request, named by the options of the command line that they came from."""

from collections.abc import Iterable

import click


def with_options_named(message: str, paths: Iterable[str]) -> str:
    """Return the message with `--by: ...` in place of `by.0: ...`, where the command that runs has such an option.

    Args:
        paths: of the fields that the message names: an option has the name of its field, or its parameter has.
    """
    context = click.get_current_context(silent=True)
    options: dict[str, str] = {}
    for option in context.command.params if context else ():
        typed = max(option.opts, key=len)
        options |= {str(option.name): typed, typed.removeprefix("--").replace("-", "_"): typed}
    for path in paths:
        field = next((name for name in reversed(path.split(".")) if name in options), None)
        if field is not None:
            message = message.replace(f"{path}: ", f"{options[field]}: ")
    return message
