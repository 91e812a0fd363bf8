"""Names that clients of other servers send beside OpenAI's: those that need nothing here, and those that have a twin.

Rule: a name whose value could change the output is read, or accepted only with the value that changes nothing.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import EXCLUDE, ValidationError, fields

from app.api.schemas.fields import IgnoredField, one_of
from app.api.schemas.request_schema import RequestSchema, Unread
from app.api.schemas.sampling import ALIASES, SAMPLING_FIELDS

_SLOTS = "The server chooses the slot."
_PREFIXES = "Prompts with the same beginning share it automatically."
_ROUTING = "One model is served."
_IDS = "Jobs have ids of their own."
_REPORTS = "Not reported."
_OFF = "What it tunes is off."
IGNORED: Mapping[str, str] = {
    "cache_prompt": _PREFIXES,
    "id_slot": _SLOTS,
    "slot_id": _SLOTS,
    "n_keep": "The context is never shifted.",
    "timings_per_token": _REPORTS,
    "return_progress": _REPORTS,
    "keep_alive": "The model stays loaded.",
    "provider": _ROUTING,
    "models": _ROUTING,
    "route": _ROUTING,
    "transforms": "Conversations are never shortened.",
    "plugins": "There are none.",
    "usage": "The usage is always reported, in streams with `stream_options.include_usage`.",
    "request_id": _IDS,
    "session_id": _IDS,
    "rid": _IDS,
    "stream_interval": "Texts are sent as they are made.",
    "guided_decoding_backend": "There is one.",
    "user_id": "Users are not distinguished.",
    "tags": _REPORTS,
    "trace": _REPORTS,
    "cache_control": _PREFIXES,
    "n_cache_reuse": _PREFIXES,
    "n_discard": "The context is never shifted.",
    "num_ctx": "The context is the server's.",
    "backend_sampling": "The server chooses.",
    "incremental_output": "Streams are incremental.",
    "return_cached_tokens_details": _REPORTS,
    "return_text_in_logprobs": "Log probabilities have texts.",
    "dry_base": _OFF,
    "dry_allowed_length": _OFF,
    "dry_penalty_last_n": _OFF,
    "dry_sequence_breakers": _OFF,
    "xtc_threshold": _OFF,
    "dynatemp_exponent": _OFF,
}
"""Of llama-server, Ollama, OpenRouter, vLLM and SGLang: accepted and not read."""

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "adapter_id": (),
    "custom_logit_processor": (),
    "early_stopping": (False,),
    "enable_search": (False,),
    "guardrails": ([],),
    "guidance_scale": (1,),
    "guided_whitespace_pattern": (),
    "kv_transfer_params": (),
    "logits_processors": ([],),
    "lora_path": (),
    "n_indent": (0,),
    "negative_prompt": ("",),
    "num_beams": (1,),
    "preset": (),
    "prompt_mode": (),
    "response_fields": ([],),
    "return_full_text": (False,),
    "return_logprob": (False,),
    "samplers": ([],),
    "session_params": (),
    "stop_regex": (),
    "t_max_predict_ms": (0, -1),
    "top_n_sigma": (0, -1),
    "top_n_tokens": (),
    "truncate": (),
    "vllm_xargs": ({},),
    "watermark": (False,),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "min_keep": (0,),
    "no_stop_trim": (False,),
    "post_sampling_probs": (False,),
    "prompt_logprobs": (),
    "return_hidden_states": (False,),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "tfs_z": (1,),
    "top_a": (0,),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "xtc_probability": (0,),
}
_NEUTRAL_IN_CHATS: Mapping[str, tuple[Any, ...]] = {
    "add_special_tokens": (False,),
    "best_of": (1,),
    "chat_template": (),
    "documents": ([],),
    "echo": (False,),
    "include_reasoning": (True,),
    "mm_processor_kwargs": ({},),
    "n_probs": (0,),
    "parse_tool_calls": (True,),
    "reasoning_format": ("auto", "deepseek"),
    "safe_prompt": (False,),
    "separate_reasoning": (True,),
    "stream_reasoning": (True,),
    "suffix": ("",),
    "thinking_token_budget": (),
}
_NEUTRAL_IN_COMPLETIONS: Mapping[str, tuple[Any, ...]] = {"add_special_tokens": (True,)}
_NEUTRAL_IN_EMBEDDINGS: Mapping[str, tuple[Any, ...]] = {
    "add_special_tokens": (True,),
    "embd_normalize": (2,),
    "input_type": (),
    "mm_processor_kwargs": ({},),
    "normalize": (True,),
    "prompt_name": (),
    "truncate": (False,),
    "truncate_prompt_tokens": (),
}
"""Of vLLM, llama-server, Ollama, text-embeddings-inference and NVIDIA. Here vectors are L2-normalised, and a text that
is too long is refused.
"""
_THINKING = ("reasoning", "thinking", "think", "enable_thinking")
_TYPES = ("enabled", "disabled")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class _Neutral(Unread, fields.Field[None]):
    """A parameter that is not supported. Null and the values that switch it off are accepted."""

    def __init__(self, *values: Any) -> None:
        super().__init__(metadata={"enum": [*values, None], "description": "Not supported with any other value."})
        self._values = values

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> None:
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in self._values):
            raise ValidationError(f"{self.name} is not supported: leave it out.")


class OllamaOptionsSchema(RequestSchema):
    """`options` of Ollama: its sampling parameters are read, those of loading a model (`num_ctx`) are ignored."""

    class Meta(RequestSchema.Meta):
        unknown = EXCLUDE
        include: ClassVar = SAMPLING_FIELDS


def ignored_of_peers() -> dict[str, fields.Field[Any]]:
    """Return the fields that are accepted and not read."""
    return {name: IgnoredField(why) for name, why in IGNORED.items()}


def fields_of_completion_peers() -> dict[str, fields.Field[Any]]:
    """Return the fields that only a completion has."""
    return {name: _Neutral(*values) for name, values in _NEUTRAL_IN_COMPLETIONS.items()}


def fields_of_embedding_peers() -> dict[str, fields.Field[Any]]:
    """Return the fields of a request for vectors. All of Ollama's options are about texts, or about loading a model."""
    neutral = {name: _Neutral(*values) for name, values in _NEUTRAL_IN_EMBEDDINGS.items()}
    return ignored_of_peers() | neutral | {"options": IgnoredField("they are about texts.")}


def fields_of_peers() -> dict[str, fields.Field[Any]]:
    """Return the fields of a request for a text."""
    options = fields.Nested(OllamaOptionsSchema, metadata={"description": "Ollama's: used where the body has none."})
    return ignored_of_peers() | {name: _Neutral(*values) for name, values in _NEUTRAL.items()} | {"options": options}


def fields_of_chat_peers() -> dict[str, fields.Field[Any]]:
    """Return the fields that only a chat has: those that are off, and the names of thinking."""
    neutral = {name: _Neutral(*values) for name, values in _NEUTRAL_IN_CHATS.items()}
    return neutral | {name: _Thinking() for name in _THINKING}


def with_options(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the loaded data with Ollama's options, where the body itself does not have the parameter."""
    sent = {ALIASES.get(name, name) for name in data}
    more = {name: value for name, value in data.get("options", {}).items() if ALIASES.get(name, name) not in sent}
    return more | dict(data)


def thinking_variables(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what templates read about thinking, from the loaded fields by which other servers set it."""
    variables: dict[str, Any] = {}
    for name in _THINKING:
        variables |= data.get(name, {})
    return variables


class _Thinking(fields.Field[dict[str, Any]]):
    """Whether, and how long, the model thinks; loaded as the variables that chat templates read."""

    def __init__(self) -> None:
        effort = one_of(*_EFFORTS)
        members = {
            "type": one_of(*_TYPES),
            "enabled": {"type": "boolean"},
            "effort": effort,
            "exclude": {"enum": [False]},
        }
        shape = {"type": "object", "properties": members, "additionalProperties": False}
        super().__init__(
            metadata={
                "anyOf": [{"type": "boolean"}, effort, shape, {"type": "null"}],
                "description": "Whether the model thinks first, for chat templates that read `enable_thinking`, "
                "`thinking` or `reasoning_effort`.",
            }
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if isinstance(value, bool):
            return {"enable_thinking": value, "thinking": value}
        if isinstance(value, str) and value in _EFFORTS:
            return {"reasoning_effort": value}
        if not isinstance(value, dict):
            raise ValidationError(f"Must be true, false, or one of: {', '.join(_EFFORTS)}.")
        variables: dict[str, Any] = {}
        for name, member in value.items():
            match name, member:
                case (("type" | "enabled" | "effort" | "max_tokens" | "budget_tokens" | "summary"), None):
                    pass
                case "exclude", False | None:
                    pass
                case "type", "enabled" | "disabled":
                    variables |= {"enable_thinking": member == "enabled", "thinking": member == "enabled"}
                case "enabled", bool():
                    variables |= {"enable_thinking": member, "thinking": member}
                case "effort", str() if member in _EFFORTS:
                    variables["reasoning_effort"] = member
                case (("effort" | "enabled" | "type"), _):
                    raise ValidationError({name: ["Has no such value."]})
                case _, _:
                    raise ValidationError({str(name): ["Not supported: leave it out."]})
        return variables
