"""The whole service as processes of their own: gunicorn, worker, Valkey, and SmolLM2."""
