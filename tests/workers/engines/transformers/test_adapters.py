"""LoRA adapters in peft's format: rows with different ones in one batch, against weights with the adapter merged in."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from app.config.adapters import Adapter
from app.errors import InvalidRequest, ModelUnavailable
from app.jobs.job import AdapterUse, JobRequest
from tests.workers.engines.transformers.driver import complete, make_engine, request, serving
from tests.workers.engines.transformers.models import tiny
from workers.engines.transformers.engine import HuggingfaceEngine
from workers.engines.transformers.forward.adapters import AdapterPlan, running
from workers.engines.transformers.loading.self_check import difference

NAMES = ("one", "two", "three", "four")
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
TARGETS = {"llama": (*ATTENTION, *MLP), "qwen2": (*ATTENTION, *MLP), "gemma2": ATTENTION, "gpt2": ("c_attn", "c_fc")}
RANK = 4


def write_adapter(folder: Path, architecture: str, *, seed: int = 0, **config: Any) -> Path:
    generator = torch.Generator().manual_seed(seed)
    weights = load_file(tiny(architecture) / "model.safetensors")
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] not in TARGETS[architecture] or name == module:
            continue
        outputs, inputs = reversed(weight.shape) if architecture == "gpt2" else weight.shape
        below = "transformer." if architecture == "gpt2" and not module.startswith("transformer.") else ""
        for side, shape in (("A", (RANK, inputs)), ("B", (outputs, RANK))):
            values = torch.randn(shape, generator=generator) * 0.3
            tensors[f"base_model.model.{below}{module}.lora_{side}.weight"] = values
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "target_modules": list(TARGETS[architecture])} | config
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def merge(adapter: Path, architecture: str, target: Path, factor: float) -> Path:
    """Write the model with the adapter in its weights. factor: alpha / r, or alpha / sqrt(r)."""
    shutil.copytree(tiny(architecture), target)
    weights = load_file(target / "model.safetensors")
    changes = load_file(adapter / "adapter_model.safetensors")
    for key in [key for key in changes if key.endswith("lora_A.weight")]:
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight") + ".weight"
        change = changes[key.replace("lora_A", "lora_B")] @ changes[key] * factor
        name = name if name in weights else name.removeprefix("transformer.")
        weights[name] = weights[name] + (change.T if architecture == "gpt2" else change)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], HuggingfaceEngine]]:
    """Make an engine of an architecture with four adapters."""

    @cache
    def make(architecture: str) -> HuggingfaceEngine:
        folder = tmp_path_factory.mktemp(architecture)
        written = {name: write_adapter(folder / name, architecture, seed=seed) for seed, name in enumerate(NAMES)}
        return make_engine(tiny(architecture), slots=8, loras={name: str(path) for name, path in written.items()})

    yield make
    make.cache_clear()


def using(request: JobRequest, *names: str, scale: float = 1.0) -> JobRequest:
    return replace(request, adapters=tuple(AdapterUse(name=name, scale=scale) for name in names))


def logits_of(engine: HuggingfaceEngine, *names: str, scale: float = 1.0) -> Tensor:
    uses = [AdapterUse(name=name, scale=scale) for name in names]
    with running(AdapterPlan.everywhere(engine._adapters.of(uses))):
        return engine._loaded.last_logits([*range(20)])


@pytest.mark.parametrize("architecture", TARGETS)
def test_an_adapter_computes_what_the_merged_weights_do(
    adapted: Callable[[str], HuggingfaceEngine], tmp_path: Path, architecture: str
) -> None:
    engine = adapted(architecture)
    merged = make_engine(
        merge(write_adapter(tmp_path / "two", architecture, seed=1), architecture, tmp_path / "merged", 6 / RANK)
    )
    expected = merged._loaded.last_logits([*range(20)])
    assert difference(logits_of(engine, "two"), expected) < 1e-5
    assert difference(logits_of(engine), expected) > 0.1


@pytest.mark.parametrize("architecture", TARGETS)
def test_eight_sequences_with_four_adapters_in_one_batch_are_what_each_is_alone(
    adapted: Callable[[str], HuggingfaceEngine], architecture: str
) -> None:
    engine = adapted(architecture)
    plain = [request(f"number {n} " * (n + 1), max_tokens=4, logprobs=3, ignore_eos=True) for n in range(8)]
    requests = [using(each, NAMES[n % 4]) if n < 6 else each for n, each in enumerate(plain)]
    together = complete(engine, *requests)
    for each, result in zip(requests, together, strict=True):
        (alone,) = complete(engine, each)
        assert result.tokens == alone.tokens
        for one, other in zip(result.logprobs, alone.logprobs, strict=True):
            assert one.logprob == pytest.approx(other.logprob, rel=1e-5, abs=1e-5)
    assert [result.tokens for result in complete(engine, *plain)][:6] != [result.tokens for result in together][:6]


def test_what_one_adapter_has_read_is_not_shared_with_another_or_the_model_itself(
    adapted: Callable[[str], HuggingfaceEngine],
) -> None:
    engine, plain = adapted("llama"), request("the same prompt for all " * 3, max_tokens=4, ignore_eos=True)
    requests = [plain, using(plain, "one"), using(plain, "two"), plain, using(plain, "one")]
    alone = [complete(engine, each)[0].tokens for each in requests]
    with serving(engine) as service:
        for number, each in enumerate(requests):
            service.submit(f"s{number}", each)
            assert service.wait(f"s{number}")[0].tokens == alone[number]
    assert [service.cached[f"s{number}"] > 0 for number in range(5)] == [False, False, False, True, True]


def test_scales_count_adapters_add_up_and_the_model_itself_stays(
    adapted: Callable[[str], HuggingfaceEngine],
) -> None:
    engine = adapted("llama")
    chosen: list[tuple[tuple[str, ...], float]] = [((), 1.0), (("one",), 1.0), (("one",), 0.5), (("one", "two"), 1.0)]
    results = [logits_of(engine, *names, scale=scale) for names, scale in chosen]
    assert all(difference(one, other) > 0.01 for one in results for other in results if one is not other)
    assert torch.equal(logits_of(engine), results[0])


def test_beam_search_and_embeddings_have_adapters_too(adapted: Callable[[str], HuggingfaceEngine]) -> None:
    engine = adapted("llama")
    beams = request("number", num_beams=3, max_tokens=6, ignore_eos=True)
    (plain,), (changed,) = complete(engine, beams), complete(engine, using(beams, "one"))
    assert plain.tokens != changed.tokens
    (vector,), (other,) = engine.embed(["a"]), engine.embed(["a"], adapters=[AdapterUse(name="one", scale=1.0)])
    assert vector != other and engine.embed(["a"]) == [vector]


def test_rslora_divides_by_the_root_of_the_rank(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a", "llama", use_rslora=True)
    engine = make_engine(tiny("llama"), loras={"one": str(adapter)})
    merged = make_engine(merge(adapter, "llama", tmp_path / "merged", 6 / RANK**0.5))
    assert difference(logits_of(engine, "one"), merged._loaded.last_logits([*range(20)])) < 1e-5


def test_an_adapter_that_is_unloaded_is_refused_and_its_requests_go_on(
    adapted: Callable[[str], HuggingfaceEngine], tmp_path: Path
) -> None:
    engine = make_engine(tiny("llama"), loras={"one": str(write_adapter(tmp_path / "a", "llama"))})
    prompt = engine.prepare(using(request("a"), "one"))
    engine._adapters.unload("one", "")
    assert prompt.state.adapters[0][0].changes
    with pytest.raises(InvalidRequest, match="'one' is not loaded any more"):
        engine.prepare(using(request("a"), "one"))


def test_an_adapter_is_loaded_and_unloaded_while_the_engine_runs(tmp_path: Path) -> None:
    engine = make_engine(tiny("llama"))
    plain = logits_of(engine)
    for version in ("1", "2"):  # of one name
        path = write_adapter(tmp_path / version, "llama", seed=int(version))
        engine.load_adapter(Adapter(name="late", path=str(path), version=version))
    uses = [AdapterUse(name="late", scale=1.0, version=version) for version in ("1", "2")]
    with running(AdapterPlan.everywhere(engine._adapters.of(uses[:1]))):
        first = engine._loaded.last_logits([*range(20)])
    with running(AdapterPlan.everywhere(engine._adapters.of(uses[1:]))):
        second = engine._loaded.last_logits([*range(20)])
    assert min(difference(first, plain), difference(second, plain), difference(first, second)) > 0.1
    engine.unload_adapter("late", "1")
    with pytest.raises(InvalidRequest, match="'late' is not loaded any more"):
        engine._adapters.of(uses[:1])
    assert engine._adapters.of(uses[1:]) and torch.equal(logits_of(engine), plain)
    with pytest.raises(ModelUnavailable, match=r"^lora_path: there is no /nowhere"):
        engine.load_adapter(Adapter(name="late", path="/nowhere", version="3"))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"use_dora": True}, "has use_dora, which is not supported"),
        ({"modules_to_save": ["lm_head"]}, "has modules_to_save"),
        ({"bias": "all"}, "has bias"),
        ({"alora_invocation_tokens": [1, 2]}, r"activated adapter \(aLoRA\): it is trained for what follows"),
        ({"peft_type": "IA3"}, "peft_type must be LORA"),
        ({"lora_alpha": None}, "no number as lora_alpha"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    adapter = write_adapter(tmp_path / "a", "llama", **config)
    with pytest.raises(ModelUnavailable, match=rf"loras\.bad: .*{reason}") as caught:
        make_engine(tiny("llama"), loras={"bad": str(adapter)})
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("kind", ["no config", "no weights", "cut short", "of another model", "an embedding", "half"])
def test_a_damaged_or_foreign_adapter_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    adapter = write_adapter(tmp_path / "a", "gpt2" if kind == "of another model" else "llama")
    file = adapter / "adapter_model.safetensors"
    match kind:
        case "no config":
            (adapter / "adapter_config.json").unlink()
        case "no weights":
            file.unlink()
        case "cut short":
            file.write_bytes(file.read_bytes()[:100])
        case "an embedding":
            name = "base_model.model.model.embed_tokens"
            save_file({f"{name}.lora_embedding_A": torch.ones(4, 259)}, file)
        case "half":
            tensors = load_file(file)
            tensors.pop(next(name for name in tensors if "lora_B" in name))
            save_file(tensors, file)
    with pytest.raises(ModelUnavailable, match=r"loras\.bad: ") as caught:
        make_engine(tiny("llama"), loras={"bad": str(adapter)})
    assert "\n" not in caught.value.detail
