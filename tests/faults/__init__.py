"""`make faults`: the promises about jobs, while processes are killed, stopped and restarted under load.

The rule of this folder: every fault hits real processes (`service`), the clients use HTTP as any client does (`load`,
`client`), and the results are what they received and what Redis holds at the end (`accounting`).
"""
