"""The command line, `llm-api` (`python -m app.cli` in a checkout): run the service, use it, look after it."""
