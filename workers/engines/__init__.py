"""Model families: engines behind one interface (`base`), or runners (`runner`), looked up by name in `registry`.

An engine uses no Redis, Celery or Flask, and imports from `app` only plain dataclasses, errors and the configuration.
"""
