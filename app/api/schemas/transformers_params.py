"""Parameters that only the huggingface family knows: the rest of transformers' `GenerationConfig`, by its own names.

They are checked as far as JSON goes; the worker, which has transformers, checks the rest and answers with the same
422. A worker of another family refuses them by name. `tests/workers/engines/transformers` holds this list against the
library.
"""

from typing import Any

from marshmallow import fields

from app.api.schemas.json_fields import Flag, JsonValue, RealNumber, Text, WholeNumber

MAX_JSON_BYTES = 65_536
_ABOUT = {"description": "huggingface: as transformers' GenerationConfig has it."}

_FLAGS = (
    "disable_compile",
    "is_assistant",
    "low_memory",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "remove_invalid_values",
    "renormalize_logits",
    "return_dict_in_generate",
    "token_healing",
    "use_cache",
    "use_mtp",
)
_WHOLE_NUMBERS = (
    "assistant_early_exit",
    "assistant_lookbehind",
    "bos_token_id",
    "decoder_start_token_id",
    "encoder_no_repeat_ngram_size",
    "forced_bos_token_id",
    "max_cache_len",
    "max_matching_ngram_size",
    "no_repeat_ngram_size",
    "num_assistant_tokens",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "pad_token_id",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "target_lookbehind",
)
_REAL_NUMBERS = (
    "assistant_confidence_threshold",
    "assistant_ensemble_weight",
    "diversity_penalty",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "guidance_scale",
    "length_penalty",
    "max_time",
    "penalty_alpha",
    "top_h",
)
_TEXTS = ("cache_implementation", "num_assistant_tokens_schedule", "speculation_type")
_ANY = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_config",
    "compile_config",
    "constraints",
    "continuous_batching_config",
    "dola_layers",
    "early_stopping",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "force_words_ids",
    "forced_eos_token_id",
    "sequence_bias",
    "suppress_tokens",
    "watermarking_config",
)


def _named(names: tuple[str, ...], kind: type[fields.Field[Any]], **options: Any) -> dict[str, fields.Field[Any]]:
    return {name: kind(allow_none=True, metadata=dict(_ABOUT), **options) for name in names}


TRANSFORMERS_PARAMS: dict[str, fields.Field[Any]] = {
    **_named(_FLAGS, Flag),
    **_named(_WHOLE_NUMBERS, WholeNumber),
    **_named(_REAL_NUMBERS, RealNumber),
    **_named(_TEXTS, Text),
    **_named(_ANY, JsonValue, max_bytes=MAX_JSON_BYTES),
}
