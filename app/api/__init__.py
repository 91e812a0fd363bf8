"""The HTTP API: a Flask application that validates requests, submits jobs and waits for them.

Law of this package: it loads no model library and imports nothing of `workers`.
"""
