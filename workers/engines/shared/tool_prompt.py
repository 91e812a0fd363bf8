"""Tools for a model whose chat template has no place for them: a system message in the words of Hermes and Qwen.

The API parses the model's output, `<tool_call>` and JSON, like any model's own format.
"""

import json
from collections.abc import Sequence
from typing import Any

_INTRODUCTION = """\
You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""

Message = dict[str, Any]


def with_tool_prompt(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[Message]:
    """Return messages for a template without tools: calls and results as texts, tools in a system message."""
    texts = [_as_text(message) for message in messages]
    if not tools:
        return texts
    introduction = _INTRODUCTION.format(tools="\n".join(_json(tool) for tool in tools))
    if texts and texts[0]["role"] == "system":
        return [{**texts[0], "content": f"{texts[0]['content']}\n\n{introduction}"}, *texts[1:]]
    return [{"role": "system", "content": introduction}, *texts]


def _as_text(message: Message) -> Message:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    if not message.get("tool_calls"):
        return message
    calls = [call["function"] for call in message["tool_calls"]]
    shown = [
        f"<tool_call>\n{_json({name: call[name] for name in ('name', 'arguments')})}\n</tool_call>" for call in calls
    ]
    return {"role": "assistant", "content": "\n".join(filter(None, [message["content"], *shown]))}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
