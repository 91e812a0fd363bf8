"""What deploy/observability has for Prometheus and Grafana: it names metrics that exist, and Prometheus accepts it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from app.api.metrics.exposition import exposition
from app.api.metrics.process import count_ping, count_request, count_webhook
from app.jobs.job import Status
from app.jobs.redis_client import RedisClient
from app.jobs.worker_registry import WorkerInfo, WorkerState
from tests.app.jobs.scene import MODEL, Scene
from tests.app.jobs.test_totals import end
from tests.stack import ROOT
from tests.waiting import scaled
from workers.engines.runner_counts import Distribution, RunnerCounts
from workers.jobs.worker_figures import WorkerFigures
from workers.metrics import WorkerCollector

FOLDER = ROOT / "deploy/observability"
DASHBOARD = json.loads((FOLDER / "grafana/llm-api.json").read_text())
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"][0]["rules"]
PAGE = (ROOT / "docs/observability.md").read_text()
NAME = re.compile(r"llm_api_\w+")


@pytest.fixture
def scene(redis_url: str, redis_client: RedisClient) -> Iterator[Scene]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as raw:
        yield Scene(redis_client, raw, redis_url)


@pytest.fixture
def of_api(scene: Scene) -> str:
    """What an API shows that has counted one of everything."""
    end(scene, scene.running(), time_to_first_token_seconds=1.0, tokens_per_second=1.0)
    end(scene, scene.running(), Status.FAILED)
    count_request("GET", "/check", 200, 0.01)
    count_webhook("sent")
    count_ping(0.001)
    return exposition(scene.client, MODEL).decode()


@pytest.fixture
def of_worker() -> str:
    figures = WorkerFigures(
        info=WorkerInfo(id="h-1-a", model=MODEL, family="f", state=WorkerState.READY),
        counts=RunnerCounts(),
        claims=1,
        takeovers=0,
        trials=0,
        fenced_writes=0,
        round_trips=Distribution((1,)),
    )
    registry = CollectorRegistry()
    registry.register(WorkerCollector(lambda: figures))
    return generate_latest(registry).decode()


@pytest.fixture
def shown(of_api: str, of_worker: str) -> str:
    return of_api + of_worker


def names_in(text: str) -> set[str]:
    return {match for match in NAME.findall(text) if not match.startswith("llm_api_key")}


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*panels, *(rule["expr"] for rule in RULES)]


def promtool(*arguments: str, given: str | None = None) -> "subprocess.CompletedProcess[str]":
    program = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus); PROMTOOL may name it")
    return subprocess.run(
        [program, *arguments], input=given, capture_output=True, text=True, timeout=scaled(30), check=False
    )


def test_dashboard_and_rules_name_only_metrics_that_are_shown(shown: str) -> None:
    named = set().union(*map(names_in, expressions()))
    assert named - names_in(shown) == set()


def test_the_documentation_lists_every_metric_and_no_other(shown: str) -> None:
    suffixes = ("_bucket", "_sum", "_count", "_created")
    shown_names = {
        name
        for name in names_in(re.sub(r"^#.*$", "", shown, flags=re.M))
        if not name.endswith(("_bucket", "_sum", "_created"))
    }
    series = {name.removesuffix("_count") for name in shown_names}
    assert {name for name in names_in(PAGE) if not name.endswith(suffixes)} == series


def test_the_dashboard_has_panels_that_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert 12 <= len(panels) <= 20
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert all(panel["description"] and panel["targets"] for panel in panels)
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_each_of_five_alerts_has_a_runbook() -> None:
    assert len(RULES) == 5
    for rule in RULES:
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^### (\w+)$", (ROOT / page).read_text(), flags=re.M)
        assert anchor in {heading.lower() for heading in headings}
        assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("critical", "warning")


def test_promtool_accepts_rules_and_configuration() -> None:
    checked = promtool("check", "config", str(FOLDER / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "5 rules found" in checked.stdout


@pytest.mark.parametrize("source", ["of_api", "of_worker"])
def test_promtool_accepts_the_metrics(source: str, request: pytest.FixtureRequest) -> None:
    checked = promtool("check", "metrics", given=request.getfixturevalue(source))
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_alerts_are_raised_when_they_should_be(tmp_path: Path) -> None:
    """Rules are tested by promtool, with series that it makes."""
    buckets = {"60": 90, "120": 100, "+Inf": 100}
    series = {
        'up{job="llm-api", instance="a"}': "1x60",
        'llm_api_redis_up{job="llm-api", instance="a"}': "1x5 0x60",
        'llm_api_workers{model_name="m", state="ready", instance="a"}': "1x5 0x60",
        'llm_api_redis_memory_used_bytes{instance="a"}': "95x60",
        'llm_api_redis_memory_max_bytes{instance="a"}': "100x60",
        'llm_api_jobs_total{model_name="m", status="failed", instance="a"}': "0+10x60",
        'llm_api_jobs_total{model_name="m", status="succeeded", instance="a"}': "0+90x60",
        'llm_api_jobs_total{model_name="m", status="succeeded", instance="b"}': "0+90x60",
        'llm_api_job_errors_total{model_name="m", code="worker_lost", instance="a"}': "0+10x60",
        **{
            f'llm_api_request_queue_time_seconds_bucket{{model_name="m", le="{bound}", instance="a"}}': f"0+{count}x60"
            for bound, count in buckets.items()
        },
    }
    cases = [{"alertname": rule["alert"], "eval_time": "40m", "exp_alerts": [_raised(rule)]} for rule in RULES]
    early = [{"alertname": rule["alert"], "eval_time": "3m", "exp_alerts": []} for rule in RULES]
    test = {
        "rule_files": [str(FOLDER / "rules.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": early + cases,
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test))
    checked = promtool("test", "rules", str(file))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _raised(rule: dict[str, Any]) -> dict[str, Any]:
    of_model = {} if rule["alert"] in ("LLMAPIUnavailable", "LLMAPIRedisNearlyFull") else {"model_name": "m"}
    of_job = {"job": "llm-api"} if rule["alert"] == "LLMAPIUnavailable" else {}
    annotations = {name: text.replace("{{ $labels.model_name }}", "m") for name, text in rule["annotations"].items()}
    return {"exp_labels": {**rule["labels"], **of_model, **of_job}, "exp_annotations": annotations}
