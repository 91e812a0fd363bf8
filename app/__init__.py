"""The HTTP side of LLM API: it serves clients, admits jobs and reads their outcome; it never imports a worker."""

VERSION = "0.1.0"  # as pyproject.toml has it
