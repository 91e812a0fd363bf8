"""`llm-api generate`: continue a prompt, and print the text as it is written."""

import sys
from typing import Any

import click

from app.cli.answer import ask, write_text
from app.cli.client import Client
from app.cli.job_events import note_of_own_limit, raise_unless_succeeded
from app.cli.output import json_option, write_json
from app.cli.sampling_options import sampling_options
from app.cli.service_options import service_options

INTERRUPTED = 130


@click.command
@click.argument("prompt")
@click.option("--chat", "is_chat", is_flag=True, help="Ask the prompt as a message, with the model's chat template.")
@click.option("--system", metavar="TEXT", help="What the model should be; with it the prompt is a message.")
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), help="Which waiting jobs start first.")
@sampling_options
@json_option
@service_options
def generate(
    client: Client,
    prompt: str,
    is_chat: bool,
    system: str | None,
    priority: str | None,
    params: dict[str, Any],
    as_json: bool,
) -> None:
    """Continue PROMPT and print the text as it is written; `-` reads the prompt from stdin.

    Ctrl-C cancels the job. With --json the job is printed once it has ended. Without --max-tokens the text has at most
    128 tokens.
    """
    text = sys.stdin.read() if prompt == "-" else prompt
    request: dict[str, Any] = {"params": params} | ({"priority": priority} if priority else {})
    if is_chat or system is not None:
        instructions = [{"role": "system", "content": system}] if system else []
        request["messages"] = [*instructions, {"role": "user", "content": text}]
    else:
        request["prompt"] = text
    answer = ask(client, request, (lambda _: None) if as_json else write_text)
    if as_json:
        write_json(client.get(f"/jobs/{answer.job_id}", wait=5 if answer.end is None else None))
    elif answer.text and not answer.text.endswith("\n"):
        click.echo()
    if answer.end is None:
        click.get_current_context().exit(INTERRUPTED)
    if note := note_of_own_limit(answer.end, params.get("max_tokens")):
        click.echo(note, err=True)
    raise_unless_succeeded(answer.end)
