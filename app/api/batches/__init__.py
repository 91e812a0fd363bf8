"""Files of requests, and the batches that ask them one by one: `/v1/files` and `/v1/batches`.

Law of this room: the state of files and batches is in Redis only, and every step may be taken twice. Any process may
drive any batch, also two at once, and die at any step; each line is answered once (docs/decisions/0018).
"""
