"""Error bodies: RFC 9457 problem documents, and OpenAI's shape under /v1."""

from marshmallow import INCLUDE, Schema, fields


class ProblemSchema(Schema):
    class Meta:
        unknown = INCLUDE  # RFC 9457: a problem may carry more; `/readyz` adds `workers`

    type = fields.String(required=True, metadata={"format": "uri-reference"})
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True, metadata={"description": "What is wrong, and what to do about it."})
    code = fields.String(required=True, metadata={"description": "A stable name of the error, for programs."})
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={"description": "Messages by the dotted path of their field."},
    )
    location = fields.String(
        metadata={"format": "uri-reference", "description": "Where the job that continues can be read or followed."}
    )


class OpenAIErrorDetailSchema(Schema):
    message = fields.String(required=True)
    type = fields.String(required=True)
    param = fields.String(required=True, allow_none=True)
    code = fields.String(required=True, allow_none=True)


class OpenAIErrorSchema(Schema):
    error = fields.Nested(OpenAIErrorDetailSchema, required=True)
