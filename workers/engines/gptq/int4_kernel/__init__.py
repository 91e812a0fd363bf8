"""A kernel that multiplies bfloat16 rows by 4-bit weights (docs/decisions/0027).

The one entrance is `int4_matmul.pack`. `build` compiles it.
"""
