import pytest

from app.access.api_key import DEFAULT_SCOPES, ApiKey, Scope


def key(*scopes: Scope, group: str = "") -> ApiKey:
    return ApiKey(id="key-1", name="one", digest="", scopes=frozenset(scopes), group=group)


def test_a_key_opens_what_its_scopes_say_and_what_any_key_opens() -> None:
    jobs = key(Scope.JOBS)
    assert {scope: jobs.allows(scope) for scope in Scope} == dict.fromkeys(Scope, False) | {Scope.JOBS: True}
    assert jobs.allows(None)


@pytest.mark.parametrize("scope", Scope)
def test_admin_opens_everything(scope: Scope) -> None:
    assert key(Scope.ADMIN).allows(scope)


def test_a_key_is_no_admin_unless_it_is_said() -> None:
    assert not ApiKey(id="key-1", name="one", digest="").allows(Scope.ADMIN)
    assert {Scope.INFERENCE, Scope.JOBS, Scope.BATCHES} == DEFAULT_SCOPES


def test_keys_of_a_group_are_one_tenant() -> None:
    assert (key(group="team").tenant, key().tenant) == ("team", "key-1")
