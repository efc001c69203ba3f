"""deploy/nightly: a CronJob that asks each night whether rows have drifted."""

import re
from typing import Any

import pytest
from click.testing import CliRunner
from test_deploy import APPLIED, RUNBOOK, at, named, rendered, renders, violations

from dgmm.cli.base import LATER
from dgmm.cli.changing import DRIFTED
from dgmm.cli.commands import main


def container() -> dict[str, Any]:
    (only,) = at(named(rendered("nightly"), "CronJob"), "spec/jobTemplate/spec/template/spec")[
        "containers"
    ]
    return dict(only)


@renders
def test_the_pod_is_restricted_and_its_manifests_are_looked_at() -> None:
    assert "nightly" in APPLIED
    template = at(named(rendered("nightly"), "CronJob"), "spec/jobTemplate/spec/template")
    assert violations(template["spec"], template["metadata"].get("annotations", {})) == set()
    policy = named(rendered("nightly"), "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


@renders
def test_the_command_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    own = container()
    settings = named(rendered("nightly"), "ConfigMap", own["envFrom"][0]["configMapRef"]["name"])
    for name, value in settings["data"].items():
        monkeypatch.setenv(name, value)
    words = [
        re.sub(r"\$\((\w+)\)", lambda found: settings["data"][found[1]], each)
        for each in own["command"]
    ]
    assert words[:2] == ["dgmm", "drift"]
    asked = main.commands["drift"].make_context("drift", words[2:], auto_envvar_prefix="DGMM_DRIFT")
    assert asked.params["data"] == "s3://bucket/tonight.zarr"
    assert asked.params["model"] == "s3://bucket/model.dgmm"
    assert (asked.params["level"], asked.params["effect"]) == (0.001, 0.01)


@renders
def test_an_alarm_fails_the_job_and_is_not_tried_again() -> None:
    job = at(named(rendered("nightly"), "CronJob"), "spec/jobTemplate/spec")
    rule = job["podFailurePolicy"]["rules"][0]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [2, 3, DRIFTED]
    assert f"| {LATER} | a store that did not answer" in RUNBOOK  # that is tried again
    assert f"{DRIFTED}  dgmm drift: the rows" in CliRunner().invoke(main, ["-h"]).output
    assert rule["onExitCodes"]["containerName"] == container()["name"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # else there may be no such policy
    assert f"| {DRIFTED} | the rows have drifted" in RUNBOOK
