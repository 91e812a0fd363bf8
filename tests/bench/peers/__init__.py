"""`make bench-peers`: the whole service with its own config.yaml against other servers of the same model file.

All take the same prompts, in rounds and in turn; a server is stopped (SIGSTOP) while another has its turn. The bare
loop gives the expected texts, and llama.cpp's batched bench the speed of the library itself. Nothing asserts a speed.
"""
