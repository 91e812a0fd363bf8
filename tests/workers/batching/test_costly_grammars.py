import pytest

from app.errors import GrammarTooCostly, InvalidGrammar
from app.jobs.job import JobRequest, Kind
from workers.batching import costly_grammars
from workers.batching.costly_grammars import FORGET_SECONDS, MAX_COSTLY, CostlyGrammars


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(costly_grammars, "time", clock)
    return clock


def schema(number: int) -> JobRequest:
    return JobRequest(kind=Kind.GENERATE, params={"json_schema": {"const": number}})


def rejected(costly: CostlyGrammars, tenant: str, request: JobRequest) -> bool:
    try:
        costly.check(tenant, request)
    except GrammarTooCostly as error:
        assert list(error.errors) == [f"params.{name}" for name in request.params]
        return True
    return False


def spend(costly: CostlyGrammars, tenant: str) -> None:
    for _ in range(MAX_COSTLY):
        assert not rejected(costly, tenant, schema(0))
        costly.note(tenant, GrammarTooCostly("too slow"))


def test_after_a_few_costly_grammars_the_next_ones_of_the_tenant_are_rejected(clock: Clock) -> None:
    costly = CostlyGrammars()
    spend(costly, "greedy")
    assert rejected(costly, "greedy", schema(1))
    assert rejected(costly, "greedy", JobRequest(kind=Kind.GENERATE, params={"grammar": "root ::= x"}))
    assert rejected(costly, "greedy", JobRequest(kind=Kind.GENERATE, params={"regex": "x"}))
    assert not rejected(costly, "other", schema(1))


def test_a_request_without_a_grammar_is_never_rejected(clock: Clock) -> None:
    costly = CostlyGrammars()
    spend(costly, "greedy")
    assert not rejected(costly, "greedy", JobRequest(kind=Kind.GENERATE, params={"temperature": 1}))


def test_a_grammar_that_was_served_before_is_served_again(clock: Clock) -> None:
    costly = CostlyGrammars()
    costly.note_served(schema(5))
    spend(costly, "greedy")
    assert not rejected(costly, "greedy", schema(5))
    assert rejected(costly, "greedy", schema(6))


def test_costly_grammars_are_forgotten_one_after_the_other(clock: Clock) -> None:
    costly = CostlyGrammars()
    spend(costly, "greedy")
    clock.now += FORGET_SECONDS - 1
    assert rejected(costly, "greedy", schema(1))
    clock.now += 2
    assert not rejected(costly, "greedy", schema(1))
    costly.note("greedy", GrammarTooCostly("too slow"))
    assert rejected(costly, "greedy", schema(1))


def test_other_errors_cost_nothing(clock: Clock) -> None:
    costly = CostlyGrammars()
    for _ in range(100):
        costly.note("wrong", InvalidGrammar("no grammar"))
        costly.note("wrong", ValueError())
    assert not rejected(costly, "wrong", schema(1))
