"""Chat templates for models that were published without one, by the names of their prompt formats.

Sources: Stanford Alpaca's `train.py`; FastChat's conversations `vicuna_v1.1`, `koala_v1` and `llama-2`; Meta's Llama 2;
OpenAI's ChatML. The token that begins a text is left out at the first place: the tokenizer puts it there.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_ALPACA = """\
{%- if messages[0].role == 'system' %}
    {{- messages[0].content }}
{%- else %}
    {{- 'Below is an instruction that describes a task. Write a response that appropriately completes the request.' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '\\n\\n### Instruction:\\n' + message.content }}
    {%- elif message.role == 'assistant' %}
        {{- '\\n\\n### Response:' + message.content }}
        {{- eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '\\n\\n### Response:' }}
{%- endif %}"""

_CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

_KOALA = """\
{{- 'BEGINNING OF CONVERSATION:' }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '' if loop.previtem is defined and loop.previtem.role == 'assistant' else ' ' }}
        {{- 'USER: ' + message.content }}
    {%- elif message.role == 'assistant' %}
        {{- ' GPT: ' + message.content }}
        {{- eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- ' GPT:' }}
{%- endif %}"""

_LLAMA_2 = """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- ' ' + message.content + ' ' }}
        {{- eos_token }}
    {%- elif loop.first or message.role == 'user' %}
        {%- if loop.previtem is defined and loop.previtem.role == 'assistant' %}
            {{- bos_token }}
        {%- endif %}
        {%- if loop.previtem is not defined or loop.previtem.role != 'system' %}
            {{- '[INST] ' }}
        {%- endif %}
        {%- if message.role == 'system' %}
            {{- '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' }}
        {%- else %}
            {{- message.content + ' [/INST]' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}"""

_VICUNA = """\
{%- if messages[0].role == 'system' %}
    {{- messages[0].content }}
{%- else %}
    {{- 'A chat between a curious user and an artificial intelligence assistant. ' }}
    {{- "The assistant gives helpful, detailed, and polite answers to the user's questions." }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '' if loop.previtem is defined and loop.previtem.role == 'assistant' else ' ' }}
        {{- 'USER: ' + message.content }}
    {%- elif message.role == 'assistant' %}
        {{- ' ASSISTANT: ' + message.content }}
        {{- eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- ' ASSISTANT:' }}
{%- endif %}"""


@dataclass(frozen=True, slots=True)
class NamedTemplate:
    """end: the text that ends a message where the format has one of its own; else the model's end token does it.

    in_names: what the name of a model of this format contains, in small letters, dashes for blanks and underscores.
    """

    name: str
    source: str
    end: str | None = None
    in_names: str | None = None


CHATML = NamedTemplate("chatml", _CHATML, end="<|im_end|>")
"""For a model without a template of its own whose name says nothing."""
_TEMPLATES = (
    NamedTemplate("alpaca", _ALPACA, in_names="alpaca"),
    CHATML,
    NamedTemplate("koala", _KOALA, in_names="koala"),
    NamedTemplate("llama-2", _LLAMA_2, in_names=r"llama-?2.*chat"),
    NamedTemplate("vicuna", _VICUNA, in_names="vicuna"),
)
NAMES = tuple(each.name for each in _TEMPLATES)
_OTHER_NAMES = {"llama2": "llama-2", "llama2-sys": "llama-2", "koala-v1": "koala", "vicuna-v1.1": "vicuna"}
_OTHER_FORMATS = re.compile(r"stable-?vicuna|gpt4-?x-?vicuna|vicuna.*-v0|alpaca-2")
"""Models named after one of these that are written otherwise."""


def template_called(name: str) -> NamedTemplate | None:
    """Return the template with this name, one of `NAMES` or what llama.cpp and FastChat call it."""
    plain = _plain(name.strip())
    wanted = _OTHER_NAMES.get(plain, plain)
    return next((each for each in _TEMPLATES if each.name == wanted), None)


def template_with(source: str) -> NamedTemplate | None:
    """Return the template that has this source."""
    return next((each for each in _TEMPLATES if each.source == source), None)


def template_of_model(names: Iterable[str | None]) -> NamedTemplate | None:
    """Return the template that the names of a model speak for; None: they speak for none, or for several."""
    plain = [_plain(name) for name in names if name]
    if any(_OTHER_FORMATS.search(name) for name in plain):
        return None
    meant = [each for each in _TEMPLATES if each.in_names and any(re.search(each.in_names, name) for name in plain)]
    return meant[0] if len(meant) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_]", "-", name.lower())
