"""Events become bytes: server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from app.api.json_response import write_json
from app.api.problems import problem
from app.errors import LLMAPIError
from app.jobs.events import Event

HEARTBEAT_SECONDS = 10.0  # writing is how a server learns that a client has left, and keeps proxies from closing
COMMENT = b": still here\n\n"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def encode(data: str, *, event: str | None = None, event_id: str | None = None) -> bytes:
    """One event. A line of `data` each for its lines; CR and CRLF, which the format cannot carry, become LF."""
    head = (f"id: {event_id}\n" if event_id else "") + (f"event: {event}\n" if event else "")
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return (head + "".join(f"data: {line}\n" for line in lines) + "\n").encode()


def text_event(event: Event) -> bytes:
    """A delta as its text and nothing else, which is what the published clients read."""
    return encode(event.data["text"], event_id=event.id)


def json_event(event: Event) -> bytes:
    return encode(write_json(event.data), event=event.type, event_id=event.id)


def error_event(error: LLMAPIError) -> bytes:
    """For what goes wrong after the response's head has been sent."""
    return encode(write_json(problem(error)), event="error")
