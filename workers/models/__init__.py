"""Where a model's weights come from: a path, an installed package, or the Hugging Face hub."""
