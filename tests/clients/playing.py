"""Run a client's program against a service, and read the outcomes of its scenes."""

import json
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass

from tests.clients import environments
from tests.clients.catalog import FOLDER, SCENES, Client, Language
from tests.clients.shared.service import Service

_SHARED = FOLDER / "shared"
_FRAME = "client_program.mjs"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a scene: `passed`, `failed` or `not offered`; the reason is one line."""

    scene: str
    outcome: str
    reason: str


def play(client: Client, service: Service, seconds: float) -> list[Outcome]:
    """Run the program of an installed client.

    Args:
        client: Its environment is installed.
        service: Runs, and is shared with other clients.
        seconds: The deadline of the whole program.

    Returns:
        An outcome for each of `SCENES`, then those of the client's own scenes. A scene without one has failed.
    """
    argument = json.dumps(asdict(service))
    try:
        ran = subprocess.run(
            [*_command(client), argument],
            cwd=environments.ENVIRONMENTS / client.name,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        output, end = ran.stdout, f"the program ended with {ran.returncode}: {_last_line(ran.stderr)}"
    except subprocess.TimeoutExpired as error:
        output, end = (error.stdout or b"").decode(), f"the program ran for more than {seconds:.0f} s"
    outcomes = {outcome.scene: outcome for outcome in map(_outcome, output.splitlines()) if outcome is not None}
    missing = {scene: Outcome(scene, "failed", end) for scene in SCENES if scene not in outcomes}
    own = [outcome for scene, outcome in outcomes.items() if scene not in SCENES]
    return [*((outcomes | missing)[scene] for scene in SCENES), *own]


def _command(client: Client) -> list[str]:
    if client.language is Language.PYTHON:
        return [str(environments.python(client.name)), str(client.folder / Language.PYTHON.value)]
    # Node looks for packages beside and above the program's own file.
    environment = environments.ENVIRONMENTS / client.name
    for source in (client.folder / Language.JAVASCRIPT.value, _SHARED / _FRAME):
        copy = environment / source.parent.name / source.name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(source, copy)
    return [str(environments.node()), str(environment / client.name / Language.JAVASCRIPT.value)]


def _environment() -> dict[str, str]:
    """The environment of a program: no key or address of the person who runs it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "LLM_"))}
    return kept | {"PYTHONPATH": str(_SHARED)}


def _outcome(line: str) -> Outcome | None:
    try:
        return Outcome(**json.loads(line))
    except (ValueError, TypeError):
        return None  # something else that the client prints


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
