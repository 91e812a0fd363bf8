"""`llm-api chat`: a conversation in the terminal."""

import sys
from typing import Any

import click

from app.cli.answer import write_text
from app.cli.client import Client, RequestFailed
from app.cli.conversation import ChatEnded, Conversation
from app.cli.job_events import JobEvent, note_of_own_limit
from app.cli.output import json_option, write_json
from app.cli.sampling_options import sampling_options, up_to_the_context
from app.cli.service_options import service_options
from app.cli.typed_lines import TypedLines, history_file

_PROMPT = "> "


@click.command
@click.option("--system", default="", metavar="TEXT", help="What the model should be.")
@click.option("--history/--no-history", default=True, show_default=True, help="Keep what you type for the next chat.")
@sampling_options
@json_option
@service_options
def chat(client: Client, system: str, history: bool, params: dict[str, Any], as_json: bool) -> None:
    """Talk with the model. Answers are printed as they are written.

    Ctrl-C, or a line /stop, ends an answer and not the chat; Ctrl-D ends the chat. /help lists what else there is.
    Lines of a pipe are questions too. With --json each answer is one line of JSON. Without --max-tokens an answer may
    fill the context.
    """
    lines = TypedLines(history_file() if history else None)
    conversation = Conversation(client, up_to_the_context(params), system)
    if sys.stdin.isatty() and not as_json:
        _greet(client)
    while True:
        try:
            line = lines.read(_PROMPT)
            if line.strip():
                _turn(conversation, lines, line, as_json=as_json)
        except KeyboardInterrupt:
            click.echo("\nCtrl-D ends the chat", err=True)
        except (EOFError, ChatEnded):
            return


def _greet(client: Client) -> None:
    """Say with what one talks. Raises RequestFailed where there is no service, before anything is typed."""
    model = client.get("/v1/models")["data"][0]
    state = "" if model["state"] == "ready" else f" ({model['state']}: {model['detail']})"
    click.echo(f"{model['id']}{state} at {client.url}; /help lists commands, Ctrl-D ends the chat", err=True)


def _turn(conversation: Conversation, lines: TypedLines, line: str, *, as_json: bool) -> None:
    if (reply := conversation.obey(line)) is not None:
        click.echo(reply, err=True)
        return
    try:
        with lines.watched():
            answer = conversation.answer(line, (lambda _: None) if as_json else write_text)
    except RequestFailed as error:
        if not sys.stdin.isatty():
            raise
        click.echo(f"Error: {error.message}", err=True)  # a person may try again
        return
    if as_json:
        end = None if answer.end is None else answer.end.data
        write_json({"job": answer.job_id, "text": answer.text, "end": end}, one_line=True)
        return
    if not answer.text.endswith("\n"):
        click.echo()
    if note := _note(answer.end, conversation.params):
        click.echo(note, err=True)


def _note(end: JobEvent | None, params: dict[str, Any]) -> str | None:
    """Return how an answer ended that is not complete."""
    if end is None:
        return "[stopped]"
    if end.data["status"] != "succeeded":
        return f"[{(end.data.get('error') or {}).get('message') or end.data['status']}]"
    return note_of_own_limit(end, params.get("max_tokens"))
