"""SmolLM2 quantized with GPTQ by gptqmodel itself."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from filelock import FileLock

from tests.workers.engines.transformers.models import CACHE, ROOT, smollm2

BITS, GROUP_SIZE = 4, 32
PROMPTS = ("The capital of France is", "Once upon a time", "def fibonacci(n):")
NEW_TOKENS = 16
TEXTS = (
    "The capital of France is Paris. The river that runs through it is the Seine, and many bridges cross it.",
    "def add(first, second):\n    return first + second\n\n\nprint(add(2, 3))\n",
    "Once upon a time there was a little girl who lived near the forest with her grandmother and a cat.",
    "Water boils at one hundred degrees. When it is heated further, it turns into steam and rises.",
)


@cache
def quantized() -> Path:
    """A folder as gptqmodel saves it. It is made once, in about a minute on 2 cores."""
    folder = CACHE / "smollm2-gptq"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "complete").exists():
            _in_a_process("quantize", str(smollm2()), str(folder))
            (folder / "complete").touch()
    return folder


@cache
def own_tokens() -> dict[str, list[int]]:
    """New tokens by prompt, without the end token, that gptqmodel itself generates greedily in bfloat16."""
    file = quantized() / "generated.json"
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            _in_a_process("generate", str(quantized()), str(file))
    tokens_by_prompt: dict[str, list[int]] = json.loads(file.read_text())
    return tokens_by_prompt


def folder_with(target: Path, model: Path) -> Path:
    """The configuration and tokenizer of a model, without a word of quantization, and without weights."""
    target.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copy(file, target)
    return target


def _in_a_process(*words: str) -> None:
    """gptqmodel patches other libraries, changes their settings, draws on the terminal, and logs where it runs."""
    command = [sys.executable, "-W", "ignore", "-m", __name__, *words]
    environment = os.environ | {"GPTQMODEL_CPU_WORKERS": "2", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=CACHE, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]


def _quantize(source: str, target: str) -> None:
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(bits=BITS, group_size=GROUP_SIZE, desc_act=False, offload_to_disk=False)
    model = GPTQModel.load(source, config, device="cpu")
    model.quantize(list(TEXTS), batch_size=len(TEXTS))
    model.save(target)


def _generate(source: str, target: str) -> None:
    import torch
    from gptqmodel import BACKEND, GPTQModel
    from transformers import AutoTokenizer

    model = GPTQModel.load(source, backend=BACKEND.GPTQ_TORCH_ATEN, device="cpu", dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokens_by_prompt = {}
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        tokens = model.model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False)[0, ids.shape[1] :]
        tokens_by_prompt[prompt] = [token for token in tokens.tolist() if token != tokenizer.eos_token_id]
    Path(target).write_text(json.dumps(tokens_by_prompt))


if __name__ == "__main__":
    {"quantize": _quantize, "generate": _generate}[sys.argv[1]](*sys.argv[2:])
