"""Forward passes over the slot cache, padded or ragged."""
