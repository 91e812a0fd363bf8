"""The worker side of LLM API: one loaded model, many sequences decoded together.

Import rules of this package: from `app` it imports only `app.errors`, `app.config` and `app.jobs`.
"""
