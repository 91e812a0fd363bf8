"""Ids of jobs as people type them."""

from typing import Any, cast

import click
import pytest

from app.cli.client import Client
from app.cli.job_ids import whole_ids

IDS = [f"2a2f7d03-5178-45c5-b682-{number:012x}" for number in range(3)] + ["0f0e7c1c-6a53-4c3e-9d33-5a1b0c7d2e4f"]


class ClientOfJobs:
    """Lists `IDS`, one in a page, and counts the requests."""

    def __init__(self) -> None:
        self.requests = 0

    def get(self, _path: str, **query: Any) -> dict[str, Any]:
        self.requests += 1
        place = query["cursor"] or 0
        return {"data": [{"id": IDS[place]}], "next_cursor": place + 1 if place + 1 < len(IDS) else None}


def resolved(*given: str) -> list[str]:
    return whole_ids(cast(Client, ClientOfJobs()), given)


def test_a_beginning_that_one_job_has_is_its_id_and_whole_ids_stay_as_they_are() -> None:
    unlisted = "ffffffff-0000-0000-0000-000000000000"
    assert resolved("0f0e7c1c", unlisted, IDS[1][:-1] + "1") == [IDS[3], unlisted, IDS[1]]


def test_whole_ids_ask_the_service_nothing() -> None:
    client = ClientOfJobs()
    whole_ids(cast(Client, client), IDS)
    assert client.requests == 0


def test_a_beginning_that_several_jobs_have_is_refused_with_their_ids() -> None:
    with pytest.raises(click.ClickException, match=f"3 of your jobs have ids that begin with 2a2f7d03: {IDS[0]}"):
        resolved("2a2f7d03")


def test_a_beginning_that_no_job_has_is_refused() -> None:
    with pytest.raises(click.ClickException, match="none of your jobs has an id that begins with 12345678"):
        resolved("12345678")
