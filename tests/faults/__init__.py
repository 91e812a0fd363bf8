"""`make faults`: what is promised about jobs, while processes are killed, stopped and restarted under load.

Law of this room: every fault hits real processes (`service`), the clients talk HTTP like anybody's (`load`, `clients`),
and what counts is what they were told and what stands in Redis at the end (`accounting`).
"""
