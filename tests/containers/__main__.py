"""`python3 -m tests.containers`: build the images, run the scenes, print what was seen."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.containers.builds import TARGETS, build, rebuild_after_a_change
from tests.containers.docker import Failure, docker
from tests.containers.scenes import SCENES

PORT = 18080


def main() -> int:
    """Return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="make images", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=SCENES, default=list(SCENES), help="these scenes, and their images"
    )
    parser.add_argument("--no-build", action="store_true", help="run the scenes with the images that are there")
    parser.add_argument("--no-scenes", action="store_true", help="build alone")
    parser.add_argument("--port", type=int, default=PORT, help="a free port, and the next one too")
    parser.add_argument(
        "--option", action="append", default=[], help="an option of docker build: --option=--build-arg=A=B"
    )
    options = parser.parse_args()
    print(f"engine {docker('version', '--format', '{{.Server.Version}} {{.Server.Os}}/{{.Server.Arch}}')}", flush=True)
    targets = [target for target in TARGETS if any(target in SCENES[name][1] for name in options.only)]
    kept = True
    if not options.no_build:
        for target in targets:
            kept &= _row(f"build {target}", lambda: [build(target, options.option)])  # noqa: B023 - called at once
        for target in targets:
            kept &= _row(f"a change of code, {target}", lambda: [rebuild_after_a_change(target, options.option)])  # noqa: B023
    for name in [] if options.no_scenes else options.only:
        kept &= _scene(name, options.port)
    print("every promise was kept" if kept else "a promise was broken", flush=True)
    return 0 if kept else 1


def _scene(name: str, port: int) -> bool:
    scene, _ = SCENES[name]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # containers read it as another user
        return _row(scene.__name__.replace("_", " "), lambda: scene(Path(folder), port))


def _row(title: str, seen: Callable[[], Iterable[str]]) -> bool:
    started = time.monotonic()
    print(title, flush=True)
    try:
        for line in seen():
            print(f"    {line}", flush=True)
    except Failure as failure:
        print(f"    BROKEN after {time.monotonic() - started:.0f} s: {failure}", flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
