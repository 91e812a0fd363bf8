"""How many files and connections a process may have open."""

import resource

OPEN_FILES = 8192  # a client is an open file; the limit of a login shell, and of a container, is often 1,024


def raise_open_file_limit() -> None:
    """Raise this process' limit, and that of the processes it starts, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
