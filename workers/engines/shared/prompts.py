"""From a request to a prompt that can run: the part that is the same for every family."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from app.errors import InvalidRequest, PromptTooLong
from app.jobs.job import Chat, JobRequest
from app.jobs.sampling import SamplingParams
from workers.engines.base import Prompt
from workers.engines.shared.chat_template import THOUGHTS_BEGIN, ChatTemplate, opens_thoughts
from workers.engines.shared.constraint import Constraint, ConstraintCompiler
from workers.engines.shared.vocabulary import Vocabulary

_CURE = "raise model_params.n_ctx"


class PromptMaker(ABC):
    """Checks a request and makes a `Prompt` of it. Any thread may use it.

    Args:
        defaults: laid under each request's `params`.
        context_tokens: cells of one slot.
    """

    def __init__(
        self, vocabulary: Vocabulary, template: ChatTemplate, defaults: Mapping[str, Any], context_tokens: int
    ) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._defaults = dict(defaults)
        self._context_tokens = context_tokens

    @property
    def default_params(self) -> Mapping[str, float]:
        """See `Engine.default_params`."""
        return {name: value for name, value in self._defaults.items() if isinstance(value, int | float)}

    def prepare(self, request: JobRequest) -> Prompt:
        """See `Engine.prepare`."""
        sampling = SamplingParams.build(self._defaults, request.params)
        self._vocabulary.check_named(sampling)
        if request.chat is not None and not sampling.ignore_eos:
            sampling = self._ending_with_message(sampling)
        text, tokens = self._read(request, sampling)
        sampling = replace(sampling, max_tokens=self._tokens_to_generate(sampling, len(tokens), request.params))
        prompt = self._prompt(sampling, request.params, tokens)
        prompt.echo_text = text if sampling.echo else self._opened_thoughts(request.chat, text, sampling)
        return prompt

    @abstractmethod
    def _prompt(self, sampling: SamplingParams, given: Mapping[str, Any], tokens: list[int]) -> Prompt:
        """Make the family's prompt of these tokens.

        Args:
            sampling: complete; `max_tokens` is what can be generated.
            given: the parameters that the client has set.
        """

    @abstractmethod
    def _first_tokens(self) -> list[int | None]:
        """Tokens that may stand for an empty prompt; the first that is one does."""

    @abstractmethod
    def _new_compiler(self) -> ConstraintCompiler: ...

    @cached_property
    def _compiler(self) -> ConstraintCompiler:
        """Made at the first grammar: it takes 0.2 s for a large vocabulary."""
        return self._new_compiler()

    def _ending_with_message(self, sampling: SamplingParams) -> SamplingParams:
        """Return the parameters with what ends a message of the chat template, where the model's end token may not."""
        end = self._template.end
        if end is None:
            return sampling
        if self._end_token is not None:
            return replace(sampling, stop_token_ids=(*sampling.stop_token_ids, self._end_token))
        return replace(sampling, stop=(*sampling.stop, end))

    @cached_property
    def _end_token(self) -> int | None:
        """The token of the template's end, if it is one: its piece may be empty, so that no text would show it."""
        tokens = self._vocabulary.tokenize(self._template.end or "", add_special=False)
        return tokens[0] if len(tokens) == 1 else None

    def _constraint(self, sampling: SamplingParams) -> Constraint | None:
        if not sampling.constraints:
            return None
        return self._compiler.compile(sampling)

    def _read(self, request: JobRequest, sampling: SamplingParams) -> tuple[str, list[int]]:
        """Return the prompt as text, where something needs it, and as tokens."""
        field = "prompt" if request.chat is None else "messages"
        if request.prompt_tokens is not None:
            tokens = self._vocabulary.checked(request.prompt_tokens, "prompt")
            text = self._vocabulary.detokenize(tokens, special=False) if sampling.echo or sampling.suffix else ""
        else:
            text = request.prompt if request.chat is None else self._template.render(request.chat)
            tokens = self._vocabulary.tokens_of(text, field, most=self._context_tokens, cure=_CURE)
        if sampling.suffix is not None:
            tokens = self._vocabulary.infill_tokens(text, sampling.suffix, self._context_tokens)
        tokens = tokens or self._first_token()
        self._check_fits(len(tokens), field)
        return text, tokens

    def _opened_thoughts(self, chat: Chat | None, prompt: str, sampling: SamplingParams) -> str:
        """Return the tag that belongs before the model's thoughts, where the prompt has it already. A text that follows
        a grammar has no thoughts.
        """
        return f"{THOUGHTS_BEGIN}\n" if chat and not sampling.constraints and opens_thoughts(prompt, chat) else ""

    def _first_token(self) -> list[int]:
        token = next((token for token in self._first_tokens() if isinstance(token, int)), None)
        if token is None:
            raise InvalidRequest("the prompt has no tokens", errors={"prompt": ["write something this model can read"]})
        return [token]

    def _check_fits(self, prompt_tokens: int, field: str) -> None:
        if prompt_tokens >= self._context_tokens:
            raise PromptTooLong.for_context(
                field, tokens=prompt_tokens, context_tokens=self._context_tokens, cure=_CURE
            )

    def _tokens_to_generate(self, sampling: SamplingParams, prompt_tokens: int, given: Mapping[str, Any]) -> int:
        """Return the largest number of tokens. `max_length` bounds prompt and completion together; without a
        `max_tokens` of the client's it takes the place of its default.
        """
        bounds = [self._context_tokens - prompt_tokens]
        if sampling.max_length is not None:
            bounds.append(sampling.max_length - prompt_tokens)
            if bounds[-1] <= 0:
                reason = f"the prompt alone has {prompt_tokens} tokens: raise max_length or give max_tokens"
                raise InvalidRequest("max_length is too small", errors={"params.max_length": [reason]})
        if sampling.max_length is None or "max_tokens" in given:
            bounds.append(sampling.max_tokens)
        return min(bounds)
