"""Which requests are prepared so fast that the consumer's own thread may do it."""

from app.jobs.job import Chat, JobRequest, Kind

QUICK_CHARACTERS = 4096  # tokenizing these takes under a millisecond: not worth another thread


def can_prepare_inline(request: JobRequest) -> bool:
    """Grammars can take a second, and tools are a long text."""
    constrained = request.params.get("grammar") or request.params.get("json_schema")
    has_tools = request.chat is not None and bool(request.chat.tools)
    is_long = len(request.prompt) + _characters(request.chat) > QUICK_CHARACTERS
    return request.kind is Kind.EMBED or not (is_long or constrained or has_tools)


def _characters(chat: Chat | None) -> int:
    return 0 if chat is None else sum(len(message.get("content") or "") for message in chat.messages)
