"""The llama family: any GGUF model, through llama-cpp-python's low-level API.

Rule of this package: no request may reach a C++ `throw` or `GGML_ASSERT`, which would end the worker, not only the job.
That is why grammars go through `workers.engines.shared.constraint` and never to llama.cpp, whose parser and matcher
abort or hang on hostile ones (rules that begin with themselves behind an empty rule, deeply nested parentheses,
ambiguity).

A field of `SamplingParams` takes effect in `samplers.py`.
"""
