"""The body of `/generate` and `/agenerate`."""

from dataclasses import dataclass, field
from typing import Any

from marshmallow import EXCLUDE, ValidationError, fields, post_load, pre_load, validate, validates_schema

from app.api.schemas.fields import BoundedList, Flag, TextField
from app.api.schemas.job import JobOptions, JobOptionsSchema
from app.api.schemas.openai.messages import MAX_MESSAGES, MessageSchema
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
    class Meta(JobOptionsSchema.Meta):
        unknown = EXCLUDE  # llm-api-python sends more beside the prompt

    @staticmethod
    def also(documented: dict[str, Any]) -> dict[str, Any]:
        """Document that a prompt or messages are required, and that messages beside a prompt are not validated."""
        messages = documented["properties"]["messages"]
        return {
            "properties": documented["properties"] | {"messages": {"description": messages["description"]}},
            "anyOf": [
                {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
                {
                    "required": ["messages"],
                    "properties": {"prompt": {"type": "null"}, "messages": messages | {"type": "array"}},
                },
            ],
        }

    prompt = TextField(
        validate=validate.Length(min=1, error="Must not be empty."),
        metadata={"description": "The text to continue, as it is: no chat template is applied."},
    )
    messages = BoundedList(
        fields.Nested(MessageSchema),
        validate=validate.Length(min=1, max=MAX_MESSAGES),
        metadata={
            "description": "A conversation instead of a prompt, rendered with the model's chat template. "
            "Ignored beside a prompt: `llm-api-python` sends both."
        },
    )
    params = fields.Nested(
        SamplingSchema,
        metadata={"description": "The sampling parameters. Default: those of the model family."},
    )
    details = Flag(metadata={"description": "/generate: respond with the job object."})
    stream = Flag(metadata={"description": "/agenerate: respond with server-sent events."})

    @pre_load
    def _ignore_messages_beside_a_prompt(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {name: value for name, value in data.items() if name != "messages"} if "prompt" in data else data

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _require_one(self, data: dict[str, Any], sent: dict[str, Any], **kwargs: Any) -> None:
        if "prompt" not in sent and "messages" not in sent:
            raise ValidationError({"prompt": ["Send a prompt, or messages."]})

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> GenerateBody:
        return GenerateBody(**data)
