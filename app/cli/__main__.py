"""`python -m app.cli`."""

from app.cli.program import llm_api

if __name__ == "__main__":
    llm_api()
