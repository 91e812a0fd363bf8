import pytest

from app.jobs import keys
from app.jobs.job import Priority
from app.jobs.principal import ANONYMOUS_PRINCIPAL, Principal
from tests.app.jobs.scene import Scene

PRINCIPAL = Principal(
    owner="key-1", tenant="lab", key_name="Ada's", weight=2.5, label="thesis", max_priority=Priority.NORMAL
)


def test_a_record_gives_back_the_principal_that_was_written_into_it() -> None:
    assert Principal.from_fields({"id": "1"} | PRINCIPAL.to_fields()) == PRINCIPAL


def test_a_record_of_an_earlier_release_is_for_its_owner_alone() -> None:
    assert Principal.from_fields({"owner": "anonymous"}) == ANONYMOUS_PRINCIPAL
    assert Principal.from_fields({"owner": "key-1"}) == Principal(owner="key-1", tenant="key-1")


def test_a_job_keeps_its_principal_and_its_worker_learns_the_tenant(scene: Scene) -> None:
    job = scene.store.admit(scene.request(), PRINCIPAL)
    claim = scene.claimed(job.id)
    assert (job.owner, claim.owner, claim.tenant) == ("key-1", "key-1", "lab")
    assert Principal.from_fields(scene.raw.hgetall(keys.job(job.id))) == PRINCIPAL


def test_the_models_of_a_key_are_kept_for_the_lines_of_its_batches() -> None:
    limited = Principal(owner="key-1", tenant="key-1", models=("small", "a,*"))
    assert Principal.from_fields(limited.to_fields()) == limited
    assert "models" not in PRINCIPAL.to_fields(), "each job would carry it"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (None, ""),
        ("", ""),
        ("app", "app"),
        (" a\x00b\n ", "ab"),
        ("x" * 100, "x" * 64),
        ("\x1b[31m", "[31m"),
        ("é", "é"),
    ],
)
def test_a_label_is_the_printable_beginning_of_a_text(text: str | None, label: str) -> None:
    assert ANONYMOUS_PRINCIPAL.with_label(text).label == label


def test_the_first_label_stays() -> None:
    assert PRINCIPAL.with_label("other") is PRINCIPAL
