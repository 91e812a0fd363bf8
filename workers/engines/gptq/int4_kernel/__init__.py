"""A kernel that multiplies bfloat16 rows by 4-bit weights (docs/decisions/0027)."""
