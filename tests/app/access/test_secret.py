import hashlib

from app.access.secret import configured_digest, digest_of, new_secret, plain_key
from app.config.settings import AuthConfig


def test_secrets_are_256_random_bits_that_can_stand_in_a_header() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(secret.isascii() and secret.isprintable() and len(secret) == len("llm-") + 43 for secret in made)


def test_a_key_in_the_configuration_is_itself_or_its_digest() -> None:
    digest = hashlib.sha256(b"my-key").hexdigest()
    assert (
        digest_of(b"my-key") == configured_digest("my-key") == configured_digest(f"sha256:{digest.upper()}") == digest
    )


def test_this_machine_sends_a_key_that_the_configuration_shows() -> None:
    digest = "sha256:" + digest_of(b"a")
    assert plain_key(AuthConfig(api_keys=(digest, "b"), admin_keys=("c",))) == "b"
    assert plain_key(AuthConfig(api_keys=(digest,), admin_keys=("c",))) == "c"
    assert plain_key(AuthConfig(api_keys=(digest,))) is None
