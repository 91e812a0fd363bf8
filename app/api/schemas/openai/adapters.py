"""`/v1/load_lora_adapter` and `/v1/unload_lora_adapter`: request bodies, as in vLLM."""

from typing import ClassVar

from marshmallow import ValidationError, validate

from app.api.schemas.fields import Flag, IgnoredField, TextField
from app.api.schemas.request_schema import RequestSchema

_MOST_CHARACTERS = 1024


def _one_line(text: str) -> None:
    if not text.isprintable() or text != text.strip():
        raise ValidationError("Must be one line without spaces around it.")


def _line(meaning: str) -> TextField:
    length = validate.Length(min=1, max=_MOST_CHARACTERS)
    return TextField(required=True, validate=[length, _one_line], metadata={"description": meaning})


class LoadAdapterSchema(RequestSchema):
    example: ClassVar = {"lora_name": "german", "lora_path": "german.gguf"}

    lora_name = _line("By this name requests choose the adapter.")
    lora_path = _line(
        "A file (llama) or folder (families of transformers) in `models_dir` of the workers, absolute or relative to "
        "it; or a repository of the Hugging Face Hub: `owner/name/file.gguf` (llama), `owner/name`."
    )
    load_inplace = Flag(metadata={"description": "Load it in place of the adapter that has this name."})


class UnloadAdapterSchema(RequestSchema):
    example: ClassVar = {"lora_name": "german"}

    lora_name = _line("The name by which it was loaded.")
    lora_int_id = IgnoredField("the name says which one.")
