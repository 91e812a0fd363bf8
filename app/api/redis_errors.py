"""What a failure of Redis means to a caller: one true sentence, without an address, a key or a value in it."""

import re

from redis import exceptions

_AWAY = "Redis does not answer, so no job can be accepted or read; try again"
_REFUSED = "Redis answers with an error, so this cannot be done now; its log and the log of this server say more"
_NO_ENTRY = "Redis does not let this server in; check the user and the password in redis_url, and that user's rights"
_SENTENCES: dict[type[exceptions.RedisError], str] = {  # the first class that fits
    exceptions.OutOfMemoryError: (
        "Redis is out of memory and takes no more jobs; delete finished jobs (DELETE /jobs/{id}), lower jobs.ttl, or "
        "raise maxmemory in Redis"
    ),
    exceptions.BusyLoadingError: "Redis has just started and is still loading its data; try again",
    exceptions.ReadOnlyError: "Redis is a replica here and takes no writes; redis_url must name the primary",
    exceptions.MasterDownError: "Redis is a replica here that has lost its primary; redis_url must name the primary",
    exceptions.AuthenticationError: _NO_ENTRY,
    exceptions.AuthorizationError: _NO_ENTRY,
    exceptions.NoPermissionError: _NO_ENTRY,
    exceptions.ResponseError: _REFUSED,
}
_CODE = re.compile(r"[A-Z]+\b")  # the word that opens an error of the protocol: MISCONF, BUSY


def sentence(error: exceptions.RedisError) -> str:
    """For the caller."""
    found = next((text for kind, text in _SENTENCES.items() if isinstance(error, kind)), None)
    if found is not None:
        return found
    return _AWAY if error.status_code is None else _REFUSED


def name(error: exceptions.RedisError) -> str:
    """For the log: what kind of failure it is. Its text may hold addresses, and the prompt that was being written."""
    code = error.status_code or ((found := _CODE.match(str(error))) and found.group())
    return f"{type(error).__name__} {code}" if code else type(error).__name__
