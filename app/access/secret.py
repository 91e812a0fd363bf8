"""The secrets of API keys: made once, shown once, and kept as digests.

A secret has 256 random bits, so that its plain SHA-256 cannot be reversed and needs no salt.
"""

import hashlib
import secrets

from app.config.settings import AuthConfig

PREFIX = "llm-"
DIGEST_PREFIX = "sha256:"  # of a digest in the place of a key in the configuration
_BYTES = 32


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(_BYTES)


def digest_of(secret: bytes) -> str:
    """Return the SHA-256 of a secret in hex."""
    return hashlib.sha256(secret).hexdigest()


def plain_key(config: AuthConfig) -> str | None:
    """Return a key of the configuration that this machine can send itself; None: none, or digests only."""
    return next((key for key in (*config.api_keys, *config.admin_keys) if not key.startswith(DIGEST_PREFIX)), None)


def configured_digest(text: str) -> str:
    """Return the digest of a key in the configuration, which is the key itself, or `sha256:` and its digest."""
    if text.startswith(DIGEST_PREFIX):
        return text.removeprefix(DIGEST_PREFIX).lower()
    return digest_of(text.encode())
