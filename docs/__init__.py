"""The documentation, and what makes the generated pages of its site."""
