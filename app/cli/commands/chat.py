"""`llm-api chat`: a conversation in the terminal."""

import sys
from typing import Any

import click

from app.cli.answer import Answer, write_text
from app.cli.client import Client, RequestFailed
from app.cli.conversation import ChatEnded, Conversation
from app.cli.output import json_option, write_json
from app.cli.sampling_options import sampling_options
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
    Lines of a pipe are questions too. With --json each answer is one line of JSON.
    """
    lines = TypedLines(history_file() if history else None)
    conversation = Conversation(client, params, system)
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
    _close(answer, as_json=as_json)


def _close(answer: Answer, *, as_json: bool) -> None:
    """Print what follows an answer's text: the end of its line, and how it ended if it is not complete."""
    end = None if answer.end is None else answer.end.data
    if as_json:
        write_json({"job": answer.job_id, "text": answer.text, "end": end}, one_line=True)
        return
    if not answer.text.endswith("\n"):
        click.echo()
    if end is None:
        click.echo("[stopped]", err=True)
    elif end["status"] != "succeeded":
        click.echo(f"[{(end.get('error') or {}).get('message') or end['status']}]", err=True)
