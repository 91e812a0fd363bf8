"""Load and serve GGUF files in this process, one for each line of the standard input; a line of JSON for each.

`["refused", reason]`: the file was refused as `workers.main` reports it. `["served", text]`: it generated.
"""

import json
import sys
from pathlib import Path

from app.config.settings import Config, WorkerConfig
from app.errors import ModelUnavailable
from tests.workers.engines.llama.driver import GREEDY, THREADS, complete
from workers.engines.llama.engine import LlamaEngine


def serve(path: Path) -> tuple[str, str]:
    config = Config(
        model_name="m",
        setup_params={"path": str(path)},
        model_params={"n_ctx": 256, "n_threads": THREADS},
        worker=WorkerConfig(slots=2),
    )
    try:
        engine = LlamaEngine(config, lambda *_: None)
    except ModelUnavailable as error:
        return "refused", error.detail
    text = complete(engine, "The capital of France is", max_tokens=4, **GREEDY).text
    engine.close()
    return "served", text


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(serve(Path(line.rstrip("\n")))), flush=True)
