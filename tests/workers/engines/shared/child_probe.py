"""A program for a child process that does what a hostile one would."""

import os
import sys
import time

from workers.engines.shared.child_program import Message, serve


def handle(message: Message) -> Message:
    match message.get("do"):
        case "environment":
            return {"names": sorted(os.environ), "pid": os.getpid()}
        case "compute":
            while True:
                pass
        case "sleep":
            time.sleep(message["seconds"])
        case "eat":
            return {"size": len(b"x" * 10**10)}
        case "crash":
            os.abort()
        case "fail":
            raise ValueError(message["secret"])
        case "exit":
            sys.exit(3)
    return {"pid": os.getpid(), "session": os.getsid(0), "group": os.getpgid(0), "nice": os.nice(0)}


if __name__ == "__main__":
    serve(handle)
