"""The gptq_llama family: models quantized with GPTQ, modern folders and legacy single files alike.

Rule of this package: the tensors decide. Bits, group size, order, symmetry and the format of zero points are read
from the tensors. A configuration that contradicts them is a ConfigError, because the model would generate noise. Once
loaded, the model is one of the huggingface family. Other packages import `engine` alone; gptqmodel is imported when a
model is loaded, not before.
"""
