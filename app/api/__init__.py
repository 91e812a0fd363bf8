"""The HTTP API: a Flask application that validates requests, submits jobs and waits for them.

Import rules: this package loads no model library and imports nothing of `workers`.
"""
