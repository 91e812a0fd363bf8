"""A chat with the model: its messages, and what the lines that begin with `/` do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.cli.answer import Answer, ask
from app.cli.client import Client

HELP = """\
/system TEXT  what the model should be, from the next answer on; without TEXT: nothing
/reset        forget the conversation, but not what the model should be
/stop         while an answer is written: end it, as Ctrl-C does
/help         this list
/exit         end the chat, as Ctrl-D does"""


class ChatEnded(Exception):
    """`/exit` was typed."""


@dataclass(slots=True)
class Conversation:
    """The messages so far, without the system's. params: sampling parameters of every answer."""

    client: Client
    params: dict[str, Any]
    system: str = ""
    messages: list[dict[str, str]] = field(default_factory=list)

    def obey(self, line: str) -> str | None:
        """Do what a line says that begins with `/`, and return what to print; None for any other line.

        Raises ChatEnded.
        """
        command, _, rest = line.strip().partition(" ")
        if not command.startswith("/"):
            return None
        if command in ("/exit", "/quit"):
            raise ChatEnded
        if command == "/system":
            self.system = rest.strip()
            return "the system prompt holds from the next answer on" if self.system else "there is no system prompt"
        if command == "/reset":
            self.messages.clear()
            return "the conversation is forgotten"
        if command == "/stop":
            return "no answer is being written"
        return HELP if command == "/help" else f"there is no {command}:\n{HELP}"

    def answer(self, question: str, write: Callable[[str], None]) -> Answer:
        """Ask the model, and keep question and answer; an answer that Ctrl-C ended is kept as far as it came.

        Raises RequestFailed; then the question is not kept.
        """
        asked = [*self.messages, {"role": "user", "content": question}]
        instructions = [{"role": "system", "content": self.system}] if self.system else []
        answer = ask(self.client, {"messages": [*instructions, *asked], "params": self.params}, write)
        if answer.text:
            self.messages = [*asked, {"role": "assistant", "content": answer.text}]
        return answer
