"""Webhooks: whoever asked for it is told of a job's end, signed after the Standard Webhooks specification.

The script that ends a job queues them (`app/jobs/lua/end_job.lua`); the API's processes send them, each from a few
threads of its own (docs/decisions/0019-webhooks.md).
"""
