"""From the configuration to a loaded model: parameters, weights, memory layout and the check of the slot cache."""
