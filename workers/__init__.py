"""The worker side of LLM API: one loaded model, many sequences decoded together.

Law of this room: of `app` it imports only `app.errors`, `app.config` and `app.jobs`.
"""
