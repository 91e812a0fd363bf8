"""Files of requests, and the batches that ask them one by one: `/v1/files` and `/v1/batches`.

Law of this room: all that is known of a file or a batch is in Redis, written in steps that may be taken twice. Any
process may drive any batch, two at once, and die anywhere; each line is answered once (docs/decisions/0018).
"""
