"""docs/api.md says what there is: every path, setting, error and metric, and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from agent.api.app import schema
from agent.api.errors import Refusal
from agent.api.metrics import ApiMetrics
from agent.errors import ClusterRefused, ClusterUnreachable, InvalidArgument, PodAmbiguous
from agent.settings import Api, Cluster
from tests.cli_process import ROOT

TEXT = (ROOT / "docs" / "api.md").read_text()


def section(title: str) -> str:
    """What is under a heading."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def first_cells(title: str) -> set[str]:
    """The names in the first column of a section's table."""
    cells = re.findall(r"^\| (`[^|]*`) \|", section(title), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)[^`]*`", cell)}


def refusals(root: type[Refusal] = Refusal) -> Iterator[type[Refusal]]:
    """Every one that says something of its own."""
    for kind in root.__subclasses__():
        yield kind
        yield from refusals(kind)


def test_every_error_has_its_status() -> None:
    raised = {(kind.status, kind.code) for kind in refusals()}
    raised |= {(400, kind.code) for kind in (InvalidArgument, PodAmbiguous)}
    raised |= {(500, kind.code) for kind in (ClusterRefused, ClusterUnreachable)}
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", section("Errors"), re.MULTILINE)
    assert {(int(status), code) for status, code in rows} == raised


def test_every_setting_is_there() -> None:
    # One of the two ways to give a password; the other is in the same row.
    assert first_cells("Settings") == set(Api.model_fields) - {"database_password"}
    assert "`database_password`, from the environment" in section("Settings")


def test_every_setting_of_the_cluster_is_there() -> None:
    assert first_cells("Restores in Kubernetes") >= set(Cluster.model_fields)


def test_every_metric_is_there() -> None:
    described = ApiMetrics("1").registry.collect()
    names = {
        metric.name.removeprefix("checkpoint_api_") + ("_total" if metric.type == "counter" else "")
        for metric in described
    }
    assert first_cells("Metrics") == names


@pytest.mark.parametrize("path", sorted(schema()["paths"]))
def test_every_path_has_an_example(path: str) -> None:
    pattern = re.escape(path).replace(r"\{action_id\}", r"\$ID").replace(r"\{id\}", r"\$POD_UID")
    assert re.search(rf"curl .*\$API{pattern}(?![\w/])", section("Endpoints")), path
