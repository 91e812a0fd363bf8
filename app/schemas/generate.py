"""The body of `/generate` and `/agenerate`."""

from dataclasses import dataclass, field
from typing import Any

from marshmallow import EXCLUDE, fields, post_load, validate

from app.schemas.job_options import JobOptions, JobOptionsSchema, given
from app.schemas.json_fields import Flag, Text
from app.schemas.sampling import SamplingSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateBody(JobOptions):
    prompt: str
    params: dict[str, Any] = field(default_factory=dict)
    details: bool = False
    stream: bool = False


class GenerateSchema(JobOptionsSchema):
    class Meta:
        unknown = EXCLUDE  # llm-api-python sends `messages` and more beside the prompt

    prompt = Text(
        required=True,
        validate=validate.Length(min=1, error="Must not be empty."),
        metadata={"description": "The text to continue, as it is: no chat template is applied."},
    )
    params = fields.Nested(
        SamplingSchema(partial=True),  # partial: fields that are not there cost nothing
        allow_none=True,
        metadata={"description": "How the tokens are chosen; what is left out is the model family's default."},
    )
    details = Flag(allow_none=True, metadata={"description": "/generate: answer with the job object."})
    stream = Flag(allow_none=True, metadata={"description": "/agenerate: answer with server-sent events."})

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> GenerateBody:
        return GenerateBody(**given(data))
