"""What the API and the workers share: jobs, their records and event streams in Redis, the order of waiting jobs.

Import rules: this package imports the standard library, redis, Celery's client, `app.errors` and `app.config`; nothing
else of `app`, and nothing of `workers`.
"""
