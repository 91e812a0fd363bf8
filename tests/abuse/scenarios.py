"""The attacks in the order of the table."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.abuse import connections, requests, strangers, uploads, webhooks
from tests.abuse.attacker import Outcomes, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """seconds: how long the attack lasts; a request that is not answered then is waited for."""

    name: str
    attack: Callable[[Target], Outcomes]
    seconds: float = 8.0

    @property
    def title(self) -> str:
        return (self.attack.__doc__ or self.name).strip().splitlines()[0]


SCENARIOS = (
    Scenario(name="special-tokens", attack=requests.special_tokens),
    Scenario(name="special-tokens-to-count", attack=requests.special_tokens_to_count),
    Scenario(name="schemas", attack=requests.schemas),
    Scenario(name="parameters", attack=requests.parameters),
    Scenario(name="depth", attack=requests.depth),
    Scenario(name="choices", attack=requests.choices),
    Scenario(name="looping-template", attack=requests.looping_template),
    Scenario(name="slow-heads", attack=connections.slow_heads, seconds=15),
    Scenario(name="slow-bodies", attack=connections.slow_bodies, seconds=25),
    Scenario(name="stay-open", attack=connections.stay_open, seconds=20),
    Scenario(name="empty-lines", attack=uploads.empty_lines),
    Scenario(name="files", attack=uploads.files),
    Scenario(name="webhooks", attack=webhooks.silent_receivers, seconds=20),
    Scenario(name="prefixes", attack=strangers.prefixes),
)
