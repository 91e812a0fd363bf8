"""`make faults`: what is promised about jobs, while processes are killed, stopped and restarted under load.

The law of this room: every fault hits real processes (`service`), the clients use HTTP as any client does (`load`,
`client`), and what counts is what they received and what stands in Redis at the end (`accounting`).
"""
