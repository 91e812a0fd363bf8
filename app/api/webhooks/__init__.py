"""Webhooks: an HTTP POST at the end of a job, signed as the Standard Webhooks specification defines it.

The script that ends a job queues them (`app/jobs/lua/end_job.lua`). The API's processes send them, each with a few
threads (docs/decisions/0019-webhooks.md).
"""
