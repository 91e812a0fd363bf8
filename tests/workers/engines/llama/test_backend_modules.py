"""The images build ggml's backends as modules, which only `library` loads."""

import json
import subprocess
import sys

from tests.waiting import scaled

CODE = """
import json
from pathlib import Path
import llama_cpp

calls = []
def load(folder): calls.append(["load", folder.decode()])
llama_cpp.llama_cpp._lib.ggml_backend_load_all_from_path = load
start = llama_cpp.llama_backend_init
llama_cpp.llama_backend_init = lambda: (calls.append(["start", ""]), start())

from workers.engines.llama.library import library_log
library_log()
print(json.dumps([calls, str(Path(llama_cpp.__file__).parent / "lib")]))
"""


def test_the_modules_beside_the_library_are_loaded_before_it_starts() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, check=True, text=True, timeout=scaled(60)
    )
    calls, folder = json.loads(ran.stdout.splitlines()[-1])
    assert calls == [["load", folder], ["start", ""]]
