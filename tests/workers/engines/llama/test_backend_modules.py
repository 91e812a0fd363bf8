"""The images build ggml's backends as modules, and nobody but `library` has them loaded."""

import json
import subprocess
import sys

from tests.waiting import scaled

CODE = """
import json
from pathlib import Path
import llama_cpp

asked = []
def load(folder): asked.append(["load", folder.decode()])
llama_cpp.llama_cpp._lib.ggml_backend_load_all_from_path = load
start = llama_cpp.llama_backend_init
llama_cpp.llama_backend_init = lambda: (asked.append(["start", ""]), start())

from workers.engines.llama.library import library_log
library_log()
print(json.dumps([asked, str(Path(llama_cpp.__file__).parent / "lib")]))
"""


def test_the_modules_beside_the_library_are_loaded_before_it_starts() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, check=True, text=True, timeout=scaled(60)
    )
    asked, folder = json.loads(ran.stdout.splitlines()[-1])
    assert asked == [["load", folder], ["start", ""]]
