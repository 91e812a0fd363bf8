"""Turns a job's request into the body of an upstream request. What OpenAI's API lacks is rejected by name."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from app.errors import UnsupportedParameter
from app.jobs.job import Chat, JobRequest
from app.jobs.sampling import CONSTRAINTS, MAX_TOKENS, SamplingParams
from workers.engines.remote.params import PromptsAs, RemoteModelParams, RemoteSetupParams

Body = dict[str, Any]

DEFAULT_MAX_TOKENS = 128  # of generate, as in every family; all else is the upstream server's default
_OF_BOTH = frozenset({"temperature", "top_p", "seed", "stop", "frequency_penalty", "presence_penalty", "logit_bias"})
_OF_COMPLETIONS = frozenset({"echo", "suffix"})
_NO_SALT = (
    "prefixes are shared on the upstream server, which is not known to separate them; leave it out, or let the "
    "operator set model_params.cache_salt_name"
)
_NEUTRAL = {f.name: f.default for f in fields(SamplingParams)}


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """is_chat: to `/chat/completions`, else to `/completions`.

    max_tokens_name: what the body calls the tokens generated at most. shows_cache: the upstream server's count of
    cached tokens is passed on; False: it would show what others have sent.
    """

    is_chat: bool
    body: Body
    max_tokens_name: str
    shows_cache: bool = True

    @property
    def is_repeatable(self) -> bool:
        """A repeated request is likely to give the same text."""
        return self.body.get("temperature") == 0 or "seed" in self.body

    @property
    def may_be_continued(self) -> bool:
        """A completion continues after any text, except where a grammar would begin again."""
        begins_anew = self.body.get("echo") or any(name in self.body for name in CONSTRAINTS)
        return isinstance(self.body.get("prompt"), str) and not begins_anew

    def continued_after(self, text: str, pieces: int) -> Body | None:
        """Return the body that continues the response after `text`; None if no token is left.

        pieces: number of pieces in which `text` was received; each is at least one token.
        """
        body = {**self.body, "prompt": self.body["prompt"] + text}
        if self.max_tokens_name not in body:
            return body
        left = body[self.max_tokens_name] - pieces
        return {**body, self.max_tokens_name: left} if left > 0 else None


class RequestMaker:
    """Of one upstream server."""

    def __init__(self, setup: RemoteSetupParams, params: RemoteModelParams) -> None:
        self._model = setup.model
        self._params = params

    def make(self, request: JobRequest, scope: str = "") -> UpstreamRequest:
        """Raises UnsupportedParameter: names what cannot be passed to the upstream server.

        Args:
            scope: as of `RunnerJob`. All requests go upstream under one key, so that server keeps one prefix cache for
                all of them, unless it separates them by a salt.
        """
        is_chat = request.chat is not None or self._params.prompts_as is PromptsAs.CHAT
        chat = self._chat(request) if is_chat else None
        body: Body = {"model": self._model, "stream": True, "stream_options": {"include_usage": True}}
        body |= _prompt(request) if chat is None else _conversation(chat)
        calls = {} if chat is None else chat.calls
        params = dict(request.params)
        if calls:
            params.pop("json_schema", None)  # made for engines that know no tools
            if calls.get("schema") is not None:
                params["json_schema"] = calls["schema"]
        params.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
        if request.cache_salt and self._params.cache_salt_name is None:
            raise UnsupportedParameter(f"cache_salt: {_NO_SALT}", errors={"cache_salt": [_NO_SALT]})
        if scope and self._params.cache_salt_name:
            body[self._params.cache_salt_name] = hashlib.sha256(f"cache salt of {scope}".encode()).hexdigest()
        return UpstreamRequest(
            is_chat=is_chat,
            body=body | self._sampling(params, is_chat=is_chat),
            max_tokens_name=self._params.param_names.get("max_tokens", "max_tokens"),
            shows_cache=not scope or self._params.cache_salt_name is not None,
        )

    def _chat(self, request: JobRequest) -> Chat:
        if request.chat is not None:
            return request.chat
        if request.prompt_tokens is not None:
            reason = "prompts go upstream as chats (model_params.prompts_as), which are made of text"
            raise UnsupportedParameter(f"prompt: {reason}", errors={"prompt": [reason]})
        return Chat(messages=[{"role": "user", "content": request.prompt}])

    def _sampling(self, params: Mapping[str, Any], *, is_chat: bool) -> Body:
        body: Body = {}
        rejected: dict[str, list[str]] = {}
        for name, value in params.items():
            translated = self._translated(name, value, is_chat=is_chat)
            if translated is None:
                rejected[f"params.{name}"] = [
                    f"the upstream server is not known to have it: {_cure(name, is_chat=is_chat)}"
                ]
            else:
                body |= translated
        if rejected:
            names = ", ".join(path.removeprefix("params.") for path in rejected)
            raise UnsupportedParameter(f"the openai family cannot pass on {names}", errors=rejected)
        return body

    def _translated(self, name: str, value: Any, *, is_chat: bool) -> Body | None:
        """Return a parameter as the upstream server has it; None: it has none."""
        if name == "max_tokens" and value >= MAX_TOKENS:
            return {}  # as many as fit
        if (theirs := self._params.param_names.get(name)) is not None:
            return {theirs: value}
        if name in _OF_BOTH or name == "max_tokens":
            return {name: value}
        if name == "logprobs":
            return {"logprobs": True, "top_logprobs": value} if is_chat else {"logprobs": value}
        if name == "json_schema" and is_chat:
            return {"response_format": _response_format(value)}
        if name in _OF_COMPLETIONS and not is_chat:
            return {name: value}
        is_off = name == "do_sample" or (name in _NEUTRAL and value == _NEUTRAL[name])
        return {} if is_off else None


def _prompt(request: JobRequest) -> Body:
    return {"prompt": list(request.prompt_tokens) if request.prompt_tokens is not None else request.prompt}


def _conversation(chat: Chat) -> Body:
    variables = dict(chat.variables)
    body: Body = {"messages": chat.messages}
    end = {"continue_final_message": chat.continues, "add_generation_prompt": chat.add_generation_prompt}
    body |= {name: value for name, value in end.items() if value is not None}
    if "reasoning_effort" in variables:
        body["reasoning_effort"] = variables.pop("reasoning_effort")
    if variables:
        body["chat_template_kwargs"] = variables
    if chat.tools:
        body["tools"] = chat.tools
        body["tool_choice"] = chat.calls.get("tool_choice", "auto")
        if not chat.calls.get("parallel_tool_calls", True):
            body["parallel_tool_calls"] = False
    return body


def _response_format(schema: Mapping[str, Any]) -> Body:
    if schema == {"type": "object"}:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": _may_be_strict(schema)},
    }


def _may_be_strict(schema: Any) -> bool:
    """OpenAI's own servers reject `strict` if an object has optional or additional properties."""
    if isinstance(schema, list):
        return all(map(_may_be_strict, schema))
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    if isinstance(properties, dict):
        is_closed = schema.get("additionalProperties") is False
        if not is_closed or set(schema.get("required", ())) != set(properties):
            return False
    return all(map(_may_be_strict, schema.values()))


def _cure(name: str, *, is_chat: bool) -> str:
    if name in _OF_COMPLETIONS and is_chat:
        return "chats have none, leave it out"
    return f"leave it out, or give its name there in model_params.param_names ({{{name}: ...}})"
