"""`model.generate()` of transformers, one prompt after the other, greedy. Runs in a process of its own.

Reads lines of JSON `{prompts, new_tokens}` from standard input and answers each with `{seconds, texts}`: the model is
loaded once, so that its rounds can alternate with those of the service.
"""

import json
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from workers.engines.transformers.loading.model import prepare_library


class Sequential:
    """In bfloat16, on as many threads as a worker takes."""

    def __init__(self, folder: str) -> None:
        prepare_library(None)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model.generation_config.eos_token_id = None

    def run(self, prompts: list[str], new_tokens: int) -> dict[str, Any]:
        texts = {}
        started = time.perf_counter()
        for prompt in prompts:
            inputs = self.tokenizer(prompt, return_tensors="pt")
            with torch.inference_mode():
                output = self.model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
            new = output[0, inputs["input_ids"].shape[1] :]
            assert len(new) == new_tokens
            texts[prompt] = self.tokenizer.decode(new, skip_special_tokens=True)
        return {"seconds": time.perf_counter() - started, "texts": texts}


def main() -> None:
    sequential = Sequential(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(sequential.run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
