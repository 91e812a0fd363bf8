"""The HTTP side of LLM API: it answers clients, admits jobs and reads their outcome; it never imports a worker."""
