"""Requests that wait for jobs: one thread per process reads notifications for all of them."""
