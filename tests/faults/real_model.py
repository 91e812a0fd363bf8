"""SmolLM2, greedy: a stream whose worker is killed has the text of an undisturbed run and counts each token once."""

from pathlib import Path

import httpx

from tests.faults.accounting import Counts, account, with_takeover
from tests.faults.client import ClientRequest, Way
from tests.faults.load import Load
from tests.faults.lost_workers import taken_over
from tests.faults.scenario import Scenario
from tests.faults.service import SLOTS, Service, running_service
from tests.stack import SMOLLM2
from tests.waiting import scaled

TOKENS = 160
IN_THE_MIDDLE = range(30, 100)
PROMPTS = [
    "Once upon a time there was a lighthouse keeper who",
    "The history of bread begins",
    "To repair a bicycle, first",
    "Rivers flow to the sea because",
]


def _its_worker_is_killed(folder: Path) -> Counts:
    config = {**SMOLLM2, "model_name": "smollm2", "worker": {"slots": SLOTS}}
    with running_service(folder, config=config) as service:
        requests = [_undisturbed(service, prompt, way) for prompt, way in zip(PROMPTS, Way, strict=True)]
        with Load(service.urls, requests, over_seconds=0) as load:
            hostages = service.kill_worker("worker-1", IN_THE_MIDDLE)
            service.start_worker("worker-2")
        return with_takeover(account(service, load.views), service, hostages)


def _undisturbed(service: Service, prompt: str, way: Way) -> ClientRequest:
    """Run a job without a fault, delete it, and return its request with its text."""
    with httpx.Client(base_url=service.urls[0], timeout=scaled(60)) as http:
        job = http.post("/generate", json={**ClientRequest(prompt, TOKENS, way, "").body, "details": True}).json()
        http.delete(job["urls"]["self"])
    return ClientRequest(prompt, TOKENS, way, job["output"]["text"])


REAL_MODEL = Scenario(
    name="real-model",
    fault="kill -9 the only worker of SmolLM2",
    run=_its_worker_is_killed,
    exactly={"accepted": len(PROMPTS), "succeeded": len(PROMPTS)},
    at_least={"hostages": len(PROMPTS), "continued": 1},
    at_most=taken_over,
)
