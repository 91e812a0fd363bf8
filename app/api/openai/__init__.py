"""OpenAI's API in terms of jobs: requests become jobs, and their outcomes OpenAI's objects and chunks.

Import rules: this package imports jobs, events and schemas, and nothing of Flask; services and owners are arguments.
"""
