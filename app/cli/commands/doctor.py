"""`llm-api doctor`: look at everything that the service needs, and name the cure of each fault."""

from collections.abc import Iterable
from dataclasses import asdict

import click

from app.cli.client import Client
from app.cli.doctor.checkup import CHECKS, examine
from app.cli.output import console, harmless, json_option, write_json
from app.cli.service_options import service_options
from app.config.finding import Finding, Level

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.FAULT: "bold red"}


@click.command
@click.option("--only", type=click.Choice(CHECKS), multiple=True, help="Only this check. May be repeated.")
@json_option
@service_options
@click.pass_context
def doctor(context: click.Context, client: Client, only: tuple[str, ...], as_json: bool) -> None:
    """Check configuration, Redis, workers, API, disk, model files, hub, memory, CPU and GPU.

    Nothing is started or changed. Each fault comes with its cure. Exit status: 0 all is well, 1 there are warnings,
    2 there is a fault.
    """
    is_own = context.params["url"] is None
    findings = examine(client, is_own=is_own, wanted=only or CHECKS)
    if as_json:
        found = list(findings)
        write_json([asdict(finding) for finding in found])
    else:
        found = list(_printed(findings))
    context.exit(max((finding.level.rank for finding in found), default=0))


def _printed(findings: Iterable[Finding]) -> Iterable[Finding]:
    """Print each finding as it comes, and give it."""
    screen = console()
    for finding in findings:
        screen.print(f"{finding.level:<8}", style=_STYLES[finding.level], end="")
        screen.print(f"{finding.check:<14} {harmless(finding.text)}", soft_wrap=True)
        if finding.cure:
            screen.print(f"{'':<23}-> {harmless(finding.cure)}", soft_wrap=True)
        yield finding
