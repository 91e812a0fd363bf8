"""Model families: engines behind one promise (`base`), or runners (`runner`), found by name through `registry`.

An engine knows nothing of Redis, Celery or Flask, and imports from `app` only plain dataclasses, errors and the
configuration.
"""
