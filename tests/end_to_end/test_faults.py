"""The promises about jobs while processes are killed, stopped and restarted: the scenarios of `make faults`.

Several run at a time, as they wait more than they compute; each test waits for its own.
"""

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from tests.faults import batches, cancellations, lost_connections, lost_workers, real_model, too_much
from tests.faults.scenario import Outcome, Scenario, running

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, "Future[Outcome]"]]:
    """The outcomes of the scenarios that the selected tests check."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen: list[Any] = [test.callspec.params["outcome"] for test in tests if "outcome" in test.fixturenames]
    with running(chosen, tmp_path_factory.mktemp("faults")) as futures:
        yield futures


@pytest.fixture
def outcome(request: pytest.FixtureRequest, outcomes: dict[str, "Future[Outcome]"]) -> Outcome:
    scenario: Scenario = request.param
    return outcomes[scenario.name].result()


def under(scenario: Scenario) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("outcome", [scenario], ids=[scenario.name], indirect=True)


@under(lost_workers.POISON)
def test_a_job_that_kills_every_worker_fails_and_the_20_others_succeed(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(lost_workers.LATE_POISON)
def test_a_job_that_kills_its_worker_late_fails_and_the_20_others_succeed(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(batches.EVERYTHING_KILLED)
def test_each_line_of_a_batch_is_answered_once_though_everything_is_killed(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(real_model.REAL_MODEL)
def test_a_real_model_continues_with_the_text_of_an_undisturbed_run(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(lost_workers.ONE_OF_TWO_KILLED)
def test_when_one_of_two_workers_is_killed_the_other_continues_its_jobs(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(lost_workers.ONLY_ONE_KILLED)
def test_when_the_only_worker_is_killed_the_next_one_continues_its_jobs(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(lost_workers.ONE_OF_TWO_STANDS_STILL)
def test_what_a_worker_writes_after_it_stood_still_for_30_s_is_refused(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(lost_workers.ONLY_ONE_STANDS_STILL)
def test_the_only_worker_takes_its_own_jobs_again_after_it_stood_still(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(lost_workers.ALL_RESTARTED)
def test_workers_and_api_are_restarted_under_load_and_no_job_is_lost(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(lost_connections.API_KILLED)
def test_clients_of_a_killed_api_receive_the_end_from_another_or_from_its_successor(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(lost_connections.REDIS_KILLED)
def test_a_redis_that_is_killed_and_comes_back_costs_no_accepted_job(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(lost_connections.CONNECTIONS_KILLED)
def test_every_connection_to_redis_may_be_killed(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(lost_connections.CLIENTS_PAUSED)
def test_a_redis_that_pauses_its_clients_for_10_s_costs_nothing(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(lost_connections.REDIS_STOPPED)
def test_a_redis_that_stands_still_for_10_s_costs_nothing(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(cancellations.CANCELED_WITHOUT_WORKER)
def test_jobs_are_canceled_while_no_worker_is_up(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(cancellations.CANCEL_STORM)
def test_a_hundred_running_jobs_are_canceled_and_their_slots_are_free(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(too_much.OVERLOAD)
def test_of_2000_jobs_exactly_those_beyond_max_queued_are_refused(outcome: Outcome) -> None:
    assert outcome.broken == []


@under(too_much.SOAK)
def test_thousands_of_jobs_leave_nothing_in_redis(outcome: Outcome) -> None:
    assert outcome.broken == []
