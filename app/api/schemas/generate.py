"""The body of `/generate` and `/agenerate`."""

from dataclasses import dataclass, field
from typing import Any

from marshmallow import EXCLUDE, fields, post_load, pre_load, validate

from app.api.schemas.job_options import JobOptions, JobOptionsSchema, given
from app.api.schemas.json_fields import Flag, Text
from app.api.schemas.openai.chat import MAX_MESSAGES
from app.api.schemas.openai.messages import MessageSchema
from app.api.schemas.sampling import SamplingSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateBody(JobOptions):
    """Either `messages` or a `prompt`."""

    prompt: str = ""
    messages: list[dict[str, Any]] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    details: bool = False
    stream: bool = False


class GenerateSchema(JobOptionsSchema):
    class Meta:
        unknown = EXCLUDE  # llm-api-python sends more beside the prompt

    @staticmethod
    def also(documented: dict[str, Any]) -> dict[str, Any]:
        """Beside a prompt `messages` may be anything, as nobody reads them."""
        messages = documented["properties"]["messages"]
        prompt, nothing = documented["properties"]["prompt"], {"type": "null"}
        description = {"description": messages["description"]}
        return {
            "properties": documented["properties"]
            | {"prompt": prompt | {"type": ["string", "null"]}, "messages": description},
            "anyOf": [
                {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
                {"required": ["messages"], "properties": {"prompt": nothing, "messages": messages}},
            ],
        }

    prompt = Text(
        error_messages={"null": "Send a prompt, or messages."},
        validate=validate.Length(min=1, error="Must not be empty."),
        metadata={"description": "The text to continue, as it is: no chat template is applied."},
    )
    messages = fields.List(
        fields.Nested(MessageSchema),
        validate=validate.Length(min=1, max=MAX_MESSAGES),
        metadata={
            "description": "A conversation instead of a prompt, rendered with the model's own chat template. "
            "Ignored beside a prompt, which `llm-api-python` sends too."
        },
    )
    params = fields.Nested(
        SamplingSchema(partial=True),  # partial: fields that are not there cost nothing
        allow_none=True,
        metadata={"description": "How the tokens are chosen; what is left out is the model family's default."},
    )
    details = Flag(allow_none=True, metadata={"description": "/generate: answer with the job object."})
    stream = Flag(allow_none=True, metadata={"description": "/agenerate: answer with server-sent events."})

    @pre_load
    def _one_of_both(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """A prompt goes first; without messages it is the prompt that is missing."""
        if data.get("prompt") is not None or data.get("messages") is None:
            return {"prompt": None} | {name: value for name, value in data.items() if name != "messages"}
        return {name: value for name, value in data.items() if name != "prompt"}

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> GenerateBody:
        return GenerateBody(**given(data))
