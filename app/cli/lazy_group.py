"""A group of commands that imports a command when it is used, and knows of the others by one line each.

So `--help` and shell completion are quick, whatever the commands import.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem


@dataclass(frozen=True, slots=True)
class Listed:
    """A command that is not loaded yet. attribute: where it is, as `package.module:name`. line: what it does."""

    attribute: str
    line: str


class LazyGroup(click.Group):
    """A group whose commands are loaded one at a time. They are listed in the order of `listed`.

    An image of a worker lacks parts of `app`, and with them some commands.
    """

    def __init__(self, *args: Any, listed: Mapping[str, Listed], **options: Any) -> None:
        super().__init__(*args, **options)
        self._listed = listed

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._listed)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._listed:
            return None
        module, _, name = self._listed[cmd_name].attribute.partition(":")
        try:
            command: click.Command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("app."):
                raise
            raise click.ClickException(f"{cmd_name} is not in this image; use it in the image `api` or `all`") from None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, listed.line) for name, listed in self._listed.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        items = [CompletionItem(name, help=listed.line) for name, listed in self._listed.items()]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [item for item in items if item.value.startswith(incomplete)] + options
