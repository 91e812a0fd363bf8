"""From a request to tokens: arguments, prompts, logits processors, sampling, and `generate()` itself."""
