"""The huggingface family: whatever `AutoModelForCausalLM` or `AutoModel` of transformers loads.

Law of this room: a row of the batch behaves as `model.generate()` would with the same arguments, through transformers'
own logits processors. What cannot be a row goes through `model.generate()` itself (`solo`), never something else.
Only `engine` is imported from outside; torch and transformers are loaded with it and by nobody before.
"""
