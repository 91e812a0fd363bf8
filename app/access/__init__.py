"""API keys: who may call the service, and what each key may do.

Import rules: this package imports app.errors, app.config and app.jobs, and nothing of Flask.
"""
