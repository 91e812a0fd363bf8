"""The HTTP side of LLM API: it serves clients, admits jobs and reads their outcome; it never imports a worker."""
