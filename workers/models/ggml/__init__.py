"""Files of LLaMA models from before August 2023: GGML, GGMF and GGJT, which llama.cpp no longer reads.

A file is recognised by its first bytes (`formats`), read (`reader`), and converted once to GGUF (`converted_copy`), if
the operator asks for it (`options`). `blocks` knows how weights were and are stored, `vocabulary` the
tokens; `writer` writes the GGUF file.
Decision 0050 has the reasons.
"""
