"""Engines over quantized models."""

from pathlib import Path
from typing import Any

import torch

from app.config.settings import Config, WorkerConfig
from tests.workers.engines.transformers.driver import THREADS
from workers.engines.gptq.engine import GptqLlamaEngine


def make_engine(
    path: Path | None, models_dir: Path, *, setup: dict[str, Any] | None = None, slots: int = 4, **params: Any
) -> GptqLlamaEngine:
    config = Config(
        model_name="m",
        model_family="gptq_llama",
        models_dir=models_dir,
        setup_params={**({"path": str(path)} if path else {}), **(setup or {})},
        model_params={"dtype": "torch.float32", "n_threads": THREADS, "n_ctx": 256, "device": "cpu", **params},
        worker=WorkerConfig(slots=slots),
    )
    return GptqLlamaEngine(config, lambda *_: None)


@torch.inference_mode()
def logits(engine: GptqLlamaEngine, tokens: list[int]) -> torch.Tensor:
    output: torch.Tensor = engine._loaded.model(input_ids=torch.tensor([tokens])).logits[0].float()
    return output
