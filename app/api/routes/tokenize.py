"""`/tokenize` and `/detokenize`: any worker serves them, without a slot and beside its jobs."""

from dataclasses import asdict
from typing import Any

from flask import Response

from app.access.api_key import Scope
from app.api.access import current_principal
from app.api.json_response import JSON, json_response, write_json
from app.api.openai.plan import renaming_fields
from app.api.openapi import Blueprint, describe_response
from app.api.request_context import services
from app.api.schemas.tokenize import DetokenizedSchema, DetokenizeSchema, TokenizeBody, TokenizeSchema, TokensSchema
from app.jobs.job import Chat
from app.jobs.tokenizer_rpc import TokenizerOperation

blueprint = Blueprint("tokenize", __name__, description="Texts as tokens, and back.")

_PROBLEMS = (400, 404, 413, 422, 500, 503)
_AT_ONCE = 8192  # tokens: no other thread runs while a list is written


@blueprint.endpoint(
    "POST",
    "/tokenize",
    body=TokenizeSchema,
    responses={200: describe_response("The ids of the tokens.", TokensSchema)},
    scope=Scope.INFERENCE,
    problems=_PROBLEMS,
)
def tokenize(body: TokenizeBody) -> Response:
    """The tokens of a text, or of the prompt that a conversation becomes."""
    services().jobs.adapters.of_model(body.model, current_principal().models)
    arguments: dict[str, Any] = {"add_special": body.add_special}
    if body.messages is None:
        arguments["text"] = body.text
    else:
        arguments["chat"] = asdict(Chat(messages=body.messages, tools=body.tools, **body.prompt_end))
    with renaming_fields({"text": body.text_name}):
        tokens = services().tokenizer.call(TokenizerOperation.TOKENIZE, arguments)
    parts = (write_json(tokens[at : at + _AT_ONCE])[1:-1] for at in range(0, len(tokens), _AT_ONCE))
    return Response(f'{{"tokens":[{",".join(parts)}],"count":{len(tokens)}}}', content_type=JSON)


@blueprint.endpoint(
    "POST",
    "/detokenize",
    body=DetokenizeSchema,
    responses={200: describe_response("Their text.", DetokenizedSchema)},
    scope=Scope.INFERENCE,
    problems=_PROBLEMS,
)
def detokenize(body: dict[str, Any]) -> Response:
    """The text of tokens."""
    services().jobs.adapters.of_model(body.get("model"), current_principal().models)
    arguments = {"tokens": body["tokens"]}
    return json_response({"text": services().tokenizer.call(TokenizerOperation.DETOKENIZE, arguments)})
