"""One client against the others: attacks on a running service beside a healthy client of another key. `make abuse`.

An attack comes from another address (127.0.0.2) and another process. What it is, what it gets and how it is tested
elsewhere: docs/security.md.
"""
