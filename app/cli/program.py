"""The program `llm-api`: its commands, its global options, and how it ends.

Exit status: 0, or that of the command; 2 for a wrong command line; 78 (`os.EX_CONFIG`) after the one line of a
`StartupError`, because trying again cannot help; 130 after Ctrl-C.
"""

import os
from pathlib import Path
from typing import Any

import click

from app.cli.lazy_group import LazyGroup, Listed
from app.errors import StartupError

INTERRUPTED = 130
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
_COMMANDS = {
    "run": Listed("app.cli.commands.run:run", "Start everything on this machine; Ctrl-C stops it."),
    "api": Listed("app.cli.commands.service_programs:api", "Start the API alone, as its image does."),
    "worker": Listed("app.cli.commands.service_programs:worker", "Start one worker alone, as its image does."),
    "chat": Listed("app.cli.commands.chat:chat", "Talk with the model."),
    "generate": Listed("app.cli.commands.generate:generate", "Continue a prompt."),
    "jobs": Listed("app.cli.commands.jobs:jobs", "List, show, follow, cancel and repeat jobs."),
    "batch": Listed("app.cli.commands.batch:batch", "Run a file of requests, and fetch its results."),
    "models": Listed("app.cli.commands.models:models", "List what the service serves."),
    "keys": Listed("app.cli.commands.keys:keys", "Make, list, change and revoke API keys."),
    "doctor": Listed("app.cli.commands.doctor:doctor", "Look for faults, and name the cure of each."),
    "usage": Listed("app.cli.commands.usage:usage", "Show what jobs have used, by day, model, key or label."),
    "audit": Listed("app.cli.commands.audit:audit", "Export who ran what, when, and how it ended."),
    "config": Listed("app.cli.commands.config:config", "Show the configuration, and where each value comes from."),
    "check-config": Listed("app.cli.commands.check_config:check_config", "Check the configuration and start nothing."),
}


class Program(LazyGroup):
    """The group of all commands: it ends with one line and an exit status where a command raises."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StartupError as error:
            from app.config.startup import give_up

            # what supervises `run` would start it again at once; a person waits for the others
            ctx.exit(give_up(error, environ=os.environ if ctx.invoked_subcommand == "run" else {}))
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(INTERRUPTED)


@click.group(cls=Program, listed=_COMMANDS, context_settings=_CONTEXT)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration, instead of LLM_API_CONFIG or ./config.yaml.",
)
def llm_api(config: Path | None) -> None:
    """Run LLM API on this machine, use it, and look after it."""
    if config is not None:
        from app.config.config_file import config_text
        from app.config.variables import CONFIG_PATH

        config_text(config)  # also for a command that would do without: the file was named
        os.environ[CONFIG_PATH] = str(config)  # for the programs that are started too
