"""What the API and the workers agree on: configuration, errors, jobs, the job record, the event stream and the queues.

Law of this room: it may import the standard library, redis, yaml, marshmallow and Celery's client, nothing heavier; it
imports neither the rest of `app` nor `workers`.
"""
