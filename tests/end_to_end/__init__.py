"""The whole service as real processes: gunicorn, worker, Valkey, and SmolLM2."""
