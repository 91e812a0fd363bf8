"""The gptq_llama family: models quantized with GPTQ, modern folders and legacy single files alike.

Law of this room: the tensors decide. Bits, group size, order, symmetry and the format of zero points are read off them,
and a configuration that contradicts them is a ConfigError, never a text of noise. Once loaded, the model is one of the
huggingface family. Other packages import `engine` alone; gptqmodel is imported when a model is loaded, not before.
"""
