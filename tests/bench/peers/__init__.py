"""`make bench-peers`: the whole service with its own config.yaml against other servers of the same model file.

All take the same prompts, in turn, in rounds; who is not asked is stopped (SIGSTOP). The bare loop says what the texts
should be, and llama.cpp's batched bench how fast the library is alone. Nothing here asserts a speed.
"""
