"""A ggml backend module that multiplies several rows at once by Q4_1 weights (docs/decisions/0026).

The one entrance is `loading.enable`. `build` compiles it.
"""
