"""Requests that cannot be a row of a batch: `model.generate()` with the request's own arguments, one at a time."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import EncoderNoRepeatNGramLogitsProcessor, EncoderRepetitionPenaltyLogitsProcessor

from app.jobs.job import FinishReason, TokenLogprob
from workers.engines.base import Prompt, Sampled
from workers.engines.transformers.forward.adapters import AdapterPlan, running
from workers.engines.transformers.generation.generate_stepper import GenerateStepper
from workers.engines.transformers.generation.logprobs import token_logprobs
from workers.engines.transformers.generation.plan import rejections_explained
from workers.engines.transformers.generation.states import SoloState
from workers.engines.transformers.loading.model import LoadedModel
from workers.engines.transformers.vocabulary import TransformersVocabulary


class SoloGenerator:
    """Runs one prompt after the other; one thread at a time."""

    def __init__(self, loaded: LoadedModel, vocabulary: TransformersVocabulary, *, trusts_remote_code: bool) -> None:
        self._loaded = loaded
        self._vocabulary = vocabulary
        self._trusts_remote_code = trusts_remote_code

    def run(self, prompt: Prompt, generated: Sequence[int]) -> Generator[Sequence[Sampled]]:
        """See `SoloBackend.run`."""
        state: SoloState = prompt.state
        state.start()
        tokens = [*prompt.tokens, *generated]
        stepper = GenerateStepper(len(tokens), streams=state.streams, should_end=lambda: state.is_out_of_time)
        steps = stepper.steps(lambda criterion: self._generate(prompt, generated, criterion))
        try:
            if state.streams:
                for new in steps:
                    yield [state.sampled(token) for token in new]
                yield [Sampled(token=0, piece=b"", is_end_token=True)]  # `generate()` stopped without an end token
            else:
                yield from self._all_at_the_end(prompt, generated, steps)
        finally:
            steps.close()

    def _all_at_the_end(
        self, prompt: Prompt, generated: Sequence[int], steps: Generator[list[int]]
    ) -> Generator[Sequence[Sampled]]:
        """Yield nothing before the end: tokens are not final (beams), or their log-probabilities are not known."""
        state: SoloState = prompt.state
        new: list[int] = []
        for more in steps:
            new += more
            yield []
        explained = self._explained(prompt, generated, new)
        sampled = [state.sampled(token, **details) for token, details in zip(new, explained, strict=True)]
        if sampled and sampled[-1].finish_reason is None and not sampled[-1].is_end_token:
            sampled[-1] = replace(sampled[-1], finish_reason=FinishReason.STOP)
        yield sampled or [Sampled(token=0, piece=b"", is_end_token=True)]

    def _generate(self, prompt: Prompt, generated: Sequence[int], stepper: GenerateStepper) -> Tensor:
        state: SoloState = prompt.state
        ids = torch.tensor([[*prompt.tokens, *generated]], device=self._loaded.device)
        arguments, processors = _continued(state, prompt.tokens, len(generated), self._loaded.device)
        if not state.streams and prompt.sampling.stop:
            arguments |= {"stop_strings": list(prompt.sampling.stop), "tokenizer": self._vocabulary.tokenizer}
        if self._trusts_remote_code:
            arguments["trust_remote_code"] = True
        torch.manual_seed(state.seed)  # rows of the batch draw from generators of their own
        plan = AdapterPlan.everywhere(state.adapters)
        with running(plan), rejections_explained(unless=lambda: stepper.has_begun):
            output: Tensor = self._loaded.model.generate(
                ids, stopping_criteria=[stepper], logits_processor=processors, **arguments
            )
        return output

    @torch.inference_mode()
    def _explained(self, prompt: Prompt, generated: Sequence[int], new: Sequence[int]) -> list[dict[str, Any]]:
        """Return for each new token its log-probabilities as arguments of `Sampled`, from one more pass over all."""
        rivals = prompt.sampling.logprobs
        if rivals is None or not new:
            return [{} for _ in new]
        everything = [*prompt.tokens, *generated, *new]
        ids = torch.tensor([everything[:-1]], device=self._loaded.device)
        with running(AdapterPlan.everywhere(prompt.state.adapters)):
            logits = self._loaded.model(input_ids=ids, use_cache=False).logits[0]
        first = len(everything) - len(new) - 1
        details: list[dict[str, Any]] = [
            {"logprobs": each} for each in token_logprobs(logits[first:], new, rivals, self._vocabulary)
        ]
        if prompt.sampling.echo and not generated:
            nothing = TokenLogprob(token=self._vocabulary.text(prompt.tokens[0]), logprob=None)
            predicted = token_logprobs(logits, prompt.tokens[1:], rivals, self._vocabulary)
            details[0]["prompt_logprobs"] = [nothing, *predicted]
        return details


def _continued(
    state: SoloState, prompt: Sequence[int], earlier: int, device: torch.device
) -> tuple[dict[str, Any], list[Any]]:
    """Return the arguments and processors with which `generate()`, given the prompt and `earlier` tokens as its input,
    continues as it would have done from the prompt alone.
    """
    arguments, processors = dict(state.arguments), list(state.processors)
    arguments.pop("max_time", None)  # `State.is_out_of_time` counts it, from the first step
    if not earlier:
        return arguments, processors
    arguments["max_new_tokens"] -= earlier
    least = arguments.pop("min_new_tokens", 0) - earlier
    if least > 0:
        arguments["min_new_tokens"] = least
    arguments.pop("begin_suppress_tokens", None)
    if "exponential_decay_length_penalty" in arguments:
        start, factor = arguments["exponential_decay_length_penalty"]
        arguments["exponential_decay_length_penalty"] = (start - earlier, factor)
    ids = torch.tensor([prompt], device=device)
    penalty = arguments.pop("encoder_repetition_penalty", 1.0)
    if penalty != 1.0:
        processors.append(EncoderRepetitionPenaltyLogitsProcessor(penalty=penalty, encoder_input_ids=ids))
    size = arguments.pop("encoder_no_repeat_ngram_size", 0)
    if size:
        processors.append(EncoderNoRepeatNGramLogitsProcessor(size, ids))
    return arguments, processors
