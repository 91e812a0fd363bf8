"""The clients written for the original LLM API, as their users call them.

Rule of this folder: its scripts run in the virtual environment of `requirements.txt`, which has neither the product nor
pytest; the tests are in `tests/end_to_end/test_published_clients.py`.
"""
