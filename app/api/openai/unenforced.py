"""Which keywords of a request's JSON Schemas the output does not have to follow, for the header that reports them."""

from collections.abc import Iterator, Mapping
from typing import Any

from app.api.schemas.openai.chat import ChatBody
from app.api.schemas.openai.responses import ResponseBody
from app.api.schemas.openai.tools import Tools
from app.config.settings import Config
from app.jobs.schema_support import supported

HEADER = "Unenforced-Keywords"
FORWARDING_FAMILY = "openai"  # another server follows the schemas, in its own way
_WITH_KINDS = "structured_outputs"  # whose member `json` has the schema


def of_params(params: Mapping[str, Any], config: Config, sent_names: Mapping[str, str]) -> list[str]:
    """Return the paths below the parameter `json_schema`, by the name that the client has used.

    sent_names: see `TextBody`.
    """
    if config.model_family == FORWARDING_FAMILY:
        return []
    return list(_paths(sent_names.get("params.json_schema", "json_schema"), params.get("json_schema")))


def of_conversation(body: ChatBody | ResponseBody, config: Config) -> list[str]:
    """Return the paths below the format of the answer, the tools that are called, and the parameter `json_schema`."""
    if config.model_family == FORWARDING_FAMILY:
        return []
    tools = _of_tools(body.tools, has_format=body.format is not None)
    return [*_paths(body.format_name, body.format), *tools, *of_params(body.params, config, body.sent_names)]


def _of_tools(tools: Tools, *, has_format: bool) -> Iterator[str]:
    """A call that the model makes of its own accord (`auto`) follows no grammar, unless the answer has a format."""
    name_of_tools = "functions" if tools.legacy else "tools"
    is_forced = tools.choice.mode == "required" or has_format
    for function in (tool["function"] for tool in tools.tools):
        path = f"{name_of_tools}.{function['name']}"
        if is_forced:
            yield from _paths(f"{path}.parameters", function.get("parameters"))
        elif function["name"] in tools.strict:
            yield f"{path}.strict"


def _paths(name: str, schema: Any) -> Iterator[str]:
    if name.endswith(_WITH_KINDS):
        name = f"{name}.json"
    for path in supported(schema).unenforced:
        yield f"{name}.{path}"
