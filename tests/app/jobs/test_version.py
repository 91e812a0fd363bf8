"""The version by which API and workers recognise each other."""

import re
import tomllib

from app import VERSION
from app.jobs.version import service_version
from tests.stack import ROOT


def test_the_version_is_that_of_the_project_and_names_the_shared_code() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert re.fullmatch(rf"{re.escape(VERSION)}\+[0-9a-f]{{8}}", service_version())
