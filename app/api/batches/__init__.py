"""Files of requests, and the batches that submit them: `/v1/files` and `/v1/batches`.

Rules of this package: the state of files and batches is in Redis only, and every step may be taken twice. Any process
may drive any batch, also two at once, and die at any step; each line gets one result (docs/decisions/0018).
"""
