"""A ggml backend module that multiplies several rows at once by quantized weights (docs/decisions/0026, 0052).

The one entrance is `loading.enable`. `build` compiles it.
"""
