"""The huggingface family: whatever `AutoModelForCausalLM` or `AutoModel` of transformers loads.

Rule of this package: a row of the batch behaves as `model.generate()` would with the same arguments, through
transformers' own logits processors. What cannot be a row goes through `model.generate()` itself (`solo`), never
something else.
Other packages import `engine` alone; it loads torch and transformers.

A field of `SamplingParams` takes effect in `generation/arguments.py` (as an argument of `generate()`), or in
`generation/processors.py` where transformers has none.
"""
