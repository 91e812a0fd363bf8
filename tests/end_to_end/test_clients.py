"""The current releases of light clients against the running service: one program for each, in its own environment.

`make test-clients` runs the others too. What the service promises to any client is in `test_openai_client.py`.
"""

import os

import pytest

from tests.clients import environments
from tests.clients.catalog import CLIENTS, Client
from tests.clients.playing import play
from tests.clients.shared.service import Service
from tests.end_to_end.test_openai_client import MODEL
from tests.stack import SMOLLM2, Stack
from tests.waiting import scaled

SECONDS = 90


@pytest.mark.parametrize("client", [client for client in CLIENTS if client.light], ids=lambda client: client.name)
def test_every_scene_of_a_client_passes(smollm2: Stack, client: Client) -> None:
    if not environments.is_installed(client.name):
        assert not os.environ.get("CI"), "CI needs what `make test` installs for the clients"
        pytest.skip(f"{client.name} is not installed in these versions: make test")
    service = Service(
        url=smollm2.url,
        model=MODEL,
        context_tokens=SMOLLM2["model_params"]["n_ctx"],
        embedding_url=smollm2.url,
        embedding_model=MODEL,
        embedding_dimensions=576,
    )
    failures = [outcome for outcome in play(client, service, scaled(SECONDS)) if outcome.outcome == "failed"]
    assert not failures, "\n".join(f"{failure.scene}: {failure.reason}" for failure in failures)
