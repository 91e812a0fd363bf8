"""Where the prompt of a conversation ends: after its last message, within it, or at the beginning of the next one."""

from typing import Any, TypedDict

from marshmallow import ValidationError, validates_schema

from app.api.schemas.fields import Flag
from app.api.schemas.request_schema import RequestSchema

_BOTH = ("continue_final_message", "add_generation_prompt")
NOT_BOTH = {"not": {"required": list(_BOTH), "properties": {name: {"const": True} for name in _BOTH}}}
"""JSON Schema of what this schema rejects besides values of wrong types."""


class PromptEnd(TypedDict, total=False):
    """The two fields, under the names that `app.jobs.job.Chat` has for them."""

    continues: bool | None
    add_generation_prompt: bool | None


class PromptEndSchema(RequestSchema):
    """The names of vLLM and transformers. Mistral and DeepSeek have `prefix: true` in the last message."""

    continue_final_message = Flag(
        metadata={
            "description": "true: the output continues the text of the last message. false: it does not. Default: it "
            "continues a last message of the assistant where the chat template allows it."
        }
    )
    add_generation_prompt = Flag(
        metadata={
            "description": "false: the prompt ends with the last message. true: with the beginning of a new message of "
            "the assistant. Default: true, unless the last message is continued."
        }
    )

    @validates_schema
    def _not_both(self, data: dict[str, Any], **kwargs: Any) -> None:
        if all(data.get(name) for name in _BOTH):
            raise ValidationError({_BOTH[0]: [f"{_BOTH[1]} begins a new message; send one of the two."]})


def take_prompt_end(data: dict[str, Any]) -> PromptEnd:
    """Take the two fields from the loaded data."""
    continues, adds_prompt = (data.pop(name, None) for name in _BOTH)
    return {"continues": continues, "add_generation_prompt": adds_prompt}
