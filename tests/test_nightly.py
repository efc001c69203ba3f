"""deploy/nightly: a CronJob that asks each night whether rows have drifted."""

import re
from typing import Any

import click
import pytest
from click.testing import CliRunner
from test_deploy import APPLIED, DEPLOY, RUNBOOK, at, named, rendered, renders, violations

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


def test_every_setting_that_is_named_is_one() -> None:
    """Also in comments: a variable that names no option ends the job with code 2."""
    text = (DEPLOY / "nightly/settings.env").read_text()
    asked = [each for each in main.commands["drift"].params if isinstance(each, click.Option)]
    options = {f"DGMM_DRIFT_{str(each.name).upper()}" for each in asked}
    flags = {flag for each in asked for flag in each.opts}
    variables = set(re.findall(r"\b(?:DGMM|AWS)_\w+", text))
    assert {each for each in variables if not each.startswith("AWS_")} <= options
    assert set(re.findall(r"--[\w-]+", text)) <= flags
    assert {"DGMM_DRIFT_MODEL", "AWS_CA_BUNDLE"} <= variables


@renders
def test_a_stores_own_certificate_is_where_the_settings_say() -> None:
    """In the Secret that a fit has, too, none of whose keys come with it; or there is none."""
    settings = (DEPLOY / "nightly/settings.env").read_text()
    (path,) = re.findall(r"^# AWS_CA_BUNDLE=(.*)$", settings, re.MULTILINE)
    assert f"# AWS_CA_BUNDLE={path}\n" in (DEPLOY / "base/settings.env").read_text()
    pod = at(named(rendered("nightly"), "CronJob"), "spec/jobTemplate/spec/template/spec")
    (mount,) = (each for each in container()["volumeMounts"] if path.startswith(each["mountPath"]))
    (volume,) = (each for each in pod["volumes"] if each["name"] == mount["name"])
    name = path.rpartition("/")[2]
    items = [{"key": name, "path": name}]
    assert volume["secret"] == {"secretName": "dgmm-tls", "optional": True, "items": items}
    assert mount["readOnly"] is True


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
