"""The clients written for the original LLM API, as their users call them.

Law of this room: what is here runs in the virtual environment of `requirements.txt`, where there is neither the product
nor pytest; the tests are in `tests/end_to_end/test_published_clients.py`.
"""
