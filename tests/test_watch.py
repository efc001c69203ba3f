"""A fit that is watched by machines: JSON lines and Prometheus metrics, of real processes."""

import contextlib
import itertools
import json
import os
import pty
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import processes
import psutil
import pytest
import zarr
from click.testing import CliRunner
from processes import Process
from prometheus_client.parser import text_string_to_metric_families
from test_closed import listening

from dgmm import GaussianMixture, load
from dgmm.cli import metrics, progress
from dgmm.cli.commands import main
from dgmm.engine import Meter
from dgmm.estimators import passes
from dgmm.estimators.passes import Pass

FIT = ("fit", "rows.zarr", "-k", "4", "-o", "m.dgmm", "--log", "json")
ENDLESS = ("--strategy", "em", "--tol", "0", "--max-iter", "99999")
MAIN = processes.DGMM


@pytest.fixture
def place(tmp_path: Path, blobs: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "rows.zarr", data=blobs, chunks=(500, 3))
    return tmp_path


def start(*words: str, cwd: Path, script: str = MAIN, **more: Any) -> Process:
    return processes.start(*words, cwd=cwd, script=script, **{"stdout": subprocess.PIPE, **more})


def told(*words: str, cwd: Path, script: str = MAIN) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and every line of standard error, which must be JSON."""
    process = start(*words, cwd=cwd, script=script)
    _, lines = process.communicate()
    return process.returncode, [parsed(line) for line in lines.splitlines()]


def parsed(line: str) -> dict[str, Any]:
    """A line's object; NaN and infinity are no JSON."""
    event = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in {line}"))
    assert datetime.fromisoformat(event["time"]).utcoffset().total_seconds() == 0
    return event


def test_each_pass_and_the_end(place: Path) -> None:
    """Of the textbook's fit, whose changes shrink steadily: then the time left is guessed."""
    words = (*FIT, "--strategy", "em", "--precision", "float64", "--checkpoint", "passes")
    code, events = told(*words, cwd=place)
    assert code == 0
    first, *passes, last = events
    assert (first["event"], first["data"], first["rows"]) == ("start", "rows.zarr", 3000)
    assert first["peak_bytes"] <= first["limit_bytes"]
    assert [each["event"] for each in passes] == ["pass"] * len(passes)
    assert [each["pass"] for each in passes] == list(range(1, len(passes) + 1))
    assert all(each["rows"] == 3000 for each in passes)
    scores = [each["score"] for each in passes[1:]]
    assert scores == sorted(scores)
    assert passes[1]["change"] is None
    guesses = [(each["seconds_left"], each["seconds_left_at_most"]) for each in passes[1:]]
    assert guesses[-1] == (0, 0)
    assert any(guess for guess, _ in guesses[:-1])
    assert all(guess <= most for guess, most in guesses if guess is not None)
    assert (last["event"], last["model"], last["passes"]) == ("done", "m.dgmm", len(passes))
    assert (last["converged"], last["reason"], last["score"]) == (True, "tol", scores[-1])

    code, events = told(*words, "--overwrite", cwd=place)  # all is done, and it only says so
    assert code == 0
    assert [each["event"] for each in events] == ["start", "log", "pass", "done"]
    stood = events[2]
    assert (stood["pass"], stood["rows"], stood["rows_per_second"]) == (len(passes), 0, None)


def test_work_on_samples_is_told_apart(place: Path) -> None:
    """A pass lasts as long as its own rows take; what went on before it is told beside it."""
    code, events = told(*FIT, "--strategy", "em", "--n-init", "20", cwd=place)
    assert code == 0
    _, first_pass, first, *others, last = events
    assert first_pass["seconds_on_samples"] == 0
    assert first["seconds_on_samples"] > first["seconds"] > 0  # twenty starts, one sweep
    assert first["rows_per_second"] == pytest.approx(3000 / first["seconds"])
    assert all(each["seconds_on_samples"] == 0 for each in others)
    assert last["seconds_on_samples"] == first["seconds_on_samples"]
    assert last["seconds"] > last["seconds_on_samples"]
    info = load(place / "m.dgmm").fit_info_
    assert info["seconds_on_samples"] == last["seconds_on_samples"]

    text = ["fit", str(place / "rows.zarr"), "-k", "4", "-o", str(place / "m.dgmm"), "--overwrite"]
    done = CliRunner().invoke(main, text)
    first, *others = [each for each in done.stderr.splitlines() if each.startswith("pass")]
    assert first.endswith("rows/s; next, a search for starts on samples")
    assert not any("next," in line for line in others)
    assert re.search(r"rows/s; \d+\.\d s on samples$", others[0])
    assert re.search(r"seconds +\d+\.\d, of which \d+\.\d on samples\n", done.stdout)
    done = CliRunner().invoke(main, [*text, "--start", str(place / "m.dgmm")])
    assert done.exit_code == 0, done.output
    assert "next," not in done.stderr  # the start is given


OFTEN = f"from dgmm.cli import progress; progress.STAGE_SECONDS = 0; {MAIN}"
"""As if work on samples took long."""


@pytest.fixture
def cube(place: Path) -> tuple[str, ...]:
    """A fit of several starts, and a larger sample after them."""
    rows = np.random.default_rng(0).uniform(size=(20_000, 3))
    zarr.create_array(place / "cube.zarr", data=rows, chunks=(5000, 3))
    return ("cube.zarr", "-o", "c.dgmm", "--n-init", "3", "--overwrite")


def test_what_is_done_on_samples_is_told(
    place: Path, cube: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which start, how many rows, which sweep; as objects and as lines, between two passes."""
    code, events = told("fit", *cube, "-k", "8", "--log", "json", cwd=place, script=OFTEN)
    assert code == 0
    kinds = [each["event"] for each in events]
    samples = [each for each in events if each["event"] == "samples"]
    assert kinds[:2] == ["start", "pass"]
    assert kinds[2 : 2 + len(samples)] == ["samples"] * len(samples)
    stages = list(dict.fromkeys(each["stage"] for each in samples))
    assert stages == [*(f"start {number} of 3" for number in (1, 2, 3)), "5,000 rows"]
    for stage in stages:
        sweeps = [each["sweep"] for each in samples if each["stage"] == stage]
        assert all(b in (0, a + 1) for a, b in itertools.pairwise(sweeps))  # none is left out

    monkeypatch.setattr("dgmm.cli.progress.STAGE_SECONDS", 0)
    monkeypatch.chdir(place)
    done = CliRunner().invoke(main, ["select", *cube, "-k", "7,8"])
    assert done.exit_code == 0, done.output
    assert re.search(r"\nstarts +3; those after the first took \d+\.\d s; the best is", done.stdout)
    shown = done.stderr.splitlines()
    assert "on samples: 7 components, full, start 2 of 3, sweep 1" in shown
    assert "on samples: 8 components, full, 5,000 rows, sweep 1" in shown


SLOW = f"""
import time
from dgmm.em import abreast
quick = abreast.start
def slow(*given):
    time.sleep(0.5)
    return quick(*given)
abreast.start = slow
{MAIN}
"""


def test_a_bar_says_what_is_done_on_samples(place: Path, cube: tuple[str, ...]) -> None:
    """While it is done, and nothing has come of it."""
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with start("fit", *cube, "-k", "8", cwd=place, script=SLOW, env=env, stderr=slave):
        os.close(slave)
        drawn = b""
        with contextlib.suppress(OSError):  # nobody writes any more
            while piece := os.read(master, 4096):
                drawn += piece
    os.close(master)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.decode())
    for number in (1, 2, 3):
        assert f"on samples: start {number} of 3" in shown
    assert re.search(r"0:(?!00)\d\d of \d:\d\d", shown)  # it has a time of its own


def test_a_large_fit_tells_its_work_on_samples_after_each_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two references, too: with so many rows that a sample can stand for them."""
    monkeypatch.setattr("dgmm.em.strategies.FAR_BELOW", 1)  # as if there were many more rows
    rows = np.random.default_rng(0).normal(size=(60_000, 2)) + 4 * (np.arange(60_000) % 2)[:, None]
    steps = list(GaussianMixture(2, random_state=0).fit_passes(rows))
    seconds = [each.seconds_on_samples for each in steps]
    assert [each.seeking for each in steps] == [True] + [False] * (len(steps) - 1)
    assert seconds[0] == 0 < seconds[1] < seconds[2]
    assert [each.seconds_on_samples for each in passes.of_fit(iter(steps))] == [
        0,
        *np.diff(seconds),
    ]


def test_a_selection(place: Path) -> None:
    """Without ``reg_covar`` the criterion is of the objective, which never falls."""
    words = ("select", "rows.zarr", "-k", "1..3", "-o", "m.dgmm", "--reg-covar", "0")
    code, events = told(*words, "--log", "json", cwd=place)
    assert code == 0
    passes = [each for each in events if each["event"] == "pass"]
    assert passes[1]["candidates"] == 3
    assert passes[1]["seconds_on_samples"] > 0
    assert events[-1]["at_edge"] == "most"
    assert passes[-1]["criterion"] <= passes[1]["criterion"] * (1 + 1e-12)
    assert events[-1]["event"] == "done"


def test_quiet_tells_the_end_only(place: Path) -> None:
    code, events = told(*FIT, "--quiet", cwd=place)
    assert (code, [each["event"] for each in events]) == (0, ["done"])


CRASH = """
import logging, sys, warnings
import dgmm
from dgmm import DataError
from dgmm.cli import commands as cli
def broken(*_, **__):
    warnings.warn("watch out")
    logging.getLogger("distributed.core").warning("a worker left")
    logging.getLogger("somebody").error("else")
    raise RuntimeError("a fault")
dgmm.open_dataset = broken
cli.main()
"""


def test_a_crash_and_what_others_say(place: Path) -> None:
    code, events = told(*FIT, cwd=place, script=CRASH)
    assert code == 1
    warned, left, other, crash = events
    assert (warned["event"], warned["message"]) == ("warning", "watch out")
    assert (left["event"], left["message"], left["level"]) == ("log", "a worker left", "warning")
    assert (other["message"], other["logger"]) == ("else", "somebody")
    assert (crash["event"], crash["exit_code"]) == ("crash", 1)
    assert crash["message"] == "RuntimeError: a fault"
    assert "in broken\nRuntimeError: a fault" in crash["traceback"]


TWICE = CRASH.replace("Runtime", "Data").replace(
    "cli.main()",
    """
import contextlib, dask
with contextlib.suppress(SystemExit):
    cli.main()
dask.config.set(logging={})
cli.main()
""",
)


def test_what_dask_says_is_no_news_to_a_person(place: Path) -> None:
    """Unless its configuration asks for that."""
    process = start(*FIT[:-1], "text", cwd=place, script=TWICE)
    lines = process.communicate()[1].splitlines()
    assert process.returncode == 3
    assert lines[:3] == ["Warning: watch out", "else", "Error: a fault"]
    assert [line for line in lines if "a worker left" in line] == [lines[4]]


def test_workers_that_are_killed_and_interrupted_say_nothing(place: Path) -> None:
    """Ctrl-C in a terminal goes to the workers, too; this process alone speaks of it."""
    words = (*FIT[:-1], "text", *ENDLESS, "--workers", "2")
    process = start(*words, cwd=place, start_new_session=True)
    with process:
        for line in process.stderr:
            if line.startswith("pass 3"):
                break
        first, *_ = [
            each
            for each in psutil.Process(process.pid).children(recursive=True)
            if "spawn_main" in " ".join(each.cmdline())
        ]
        first.kill()
        for line in process.stderr:
            assert line.startswith("pass ")
            if int(line[5:].split(":")[0]) >= 10:
                break
        os.killpg(process.pid, signal.SIGINT)
        *others, last = process.stderr
    assert process.returncode == 130
    assert all(line.startswith("pass ") for line in others)
    assert last == "Interrupted: nothing was written.\n"


def test_worker_processes_say_nothing_themselves(place: Path) -> None:
    """Nor does Dask tell how it starts them; what goes wrong is told once."""
    (place / "rows.zarr/c/2/0").write_bytes(b"garbage")
    code, events = told(*FIT, "--workers", "2", cwd=place)
    assert code == 3
    assert [each["event"] for each in events] == ["start", "error"]
    assert "rows 0 to 3000" in events[-1]["message"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("fit", "no.zarr", *FIT[2:]), 3, "does not exist"),
        ((*FIT, "--memory", "50MiB"), 3, "in each worker process"),
        ((*FIT, "--memory", "much"), 2, "'much'"),
        ((*FIT, "--max-iter", "-1"), 2, "x>=0"),
        ((*FIT, "--unknown"), 2, "--unknown"),
        (("fit", "--log=json"), 2, "DATA"),
        ((*FIT, "--workers", "2", "--scheduler", "tcp://127.0.0.1:9"), 2, "exclude"),
        ((*FIT, "--metrics-port", "http"), 2, "'http' is not like 9090"),
        ((*FIT, "--metrics-port", "127.0.0.1:1:2"), 2, "can't be served"),
    ],
)
def test_errors_are_one_object(
    place: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    found, events = told(*words, cwd=place)
    assert found == code
    error = events[-1]
    assert (error["event"], error["exit_code"]) == ("error", code)
    assert message in error["message"]
    assert not (place / "m.dgmm").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the same command continues"),
        (("--no-resume",), "the same command with --resume continues"),
    ],
)
def test_interrupted(place: Path, words: tuple[str, ...], message: str) -> None:
    process = start(*FIT, *ENDLESS, "--checkpoint", "passes", *words, cwd=place)
    with process:
        while parsed(process.stderr.readline())["event"] != "pass":
            pass
        process.terminate()
        last = [parsed(line) for line in process.stderr][-1]
    assert process.returncode == 4
    assert (last["event"], last["exit_code"]) == ("interrupted", 4)
    assert message in last["message"]


def served(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def scraped(url: str) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(served(url))
        for sample in family.samples
    }


def test_metrics_of_a_fit(place: Path) -> None:
    process = start(*FIT, *ENDLESS, "--metrics-port", "0", cwd=place)
    with process:
        url = parsed(process.stderr.readline())["message"].removeprefix("metrics at ")
        assert {address for address, _ in listening(psutil.Process(process.pid))} == {"127.0.0.1"}
        while parsed(process.stderr.readline()).get("pass") != 3:
            pass
        first = scraped(url)
        for _ in range(3):  # by then passes have been done that were not when the first was served
            seen = parsed(process.stderr.readline())
        second = scraped(url)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert process.returncode == 130
    assert first["dgmm_passes_total"] >= 3
    assert second["dgmm_passes_total"] >= seen["pass"]
    assert second["dgmm_rows_total"] >= 3000 * seen["pass"]
    assert first["dgmm_rows_per_pass"] == 3000
    assert second["dgmm_score"] >= first["dgmm_score"] - 1e-12
    assert second["dgmm_rows_per_second"] > 0
    assert second["dgmm_seconds_left_at_most"] > 0
    assert "dgmm_gap" not in second  # the textbook's algorithm has no idea of it
    assert second["process_resident_memory_bytes"] > 50 << 20


@pytest.mark.parametrize(
    ("words", "host"),
    [
        ("9090", "127.0.0.1"),
        ("0.0.0.0:9090", "0.0.0.0"),
        ("[::]:9090", "::"),
        (":9090", "127.0.0.1"),
    ],
)
def test_metrics_are_for_this_machine_unless_told(words: str, host: str) -> None:
    given = [*FIT[1:], "--metrics-port", words]
    context = main.commands["fit"].make_context("fit", given)
    assert context.params["metrics_port"] == (host, 9090)


def test_rows_are_counted_within_a_pass_and_never_fall() -> None:
    """And what is done on samples is told for as long as that takes."""
    meter, planned = Meter(), GaussianMixture(2).plan(np.zeros((100, 2)))

    def passes() -> Iterator[Pass]:
        meter.add(100)
        yield Pass(1, 100, 1.0, "read", {})
        meter.tell("start 3 of 8", 12)
        assert 'dgmm_stage_info{stage="start 3 of 8"} 1.0' in served(url)
        meter.tell("", 0)
        assert "dgmm_stage" not in served(url)
        meter.add(50)
        seen.append(scraped(url))
        meter.add(-50)  # the cluster was lost, and the pass begins again
        seen.append(scraped(url))
        yield Pass(2, 100, 2.0, "", {"score": -1.5, "gap": None})
        seen.append(scraped(url))

    seen: list[dict[str, float]] = []
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    with metrics.served(("127.0.0.1", port)) as watch:
        assert "dgmm_rows_total" not in scraped(url)
        progress.run(passes(), planned, meter, watch)
    assert [each["dgmm_rows_total"] for each in seen] == [150, 150, 150]
    assert [each["dgmm_passes_total"] for each in seen] == [1, 1, 2]
    assert seen[2]["dgmm_score"] == -1.5
    assert seen[2]["dgmm_rows_per_second"] == 50
    assert "dgmm_gap" not in seen[2]
    with pytest.raises(OSError):  # nobody serves any more
        scraped(url)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_in_use(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = f"127.0.0.1:{taken.getsockname()[1]}"
        code, events = told(*FIT, "--checkpoint", "passes", "--metrics-port", port, cwd=place)
    assert code == 2
    (error,) = events
    assert f"metrics can't be served at {port}" in error["message"]
    assert not (place / "passes").exists()


def test_without_prometheus_client(place: Path) -> None:
    hidden = f"import sys; sys.modules['prometheus_client'] = None; {MAIN}"
    code, events = told(*FIT, "--metrics-port", "0", cwd=place, script=hidden)
    assert code == 2
    assert "pip install 'dgmm[metrics]'" in events[-1]["message"]
    code, events = told(*FIT, cwd=place, script=hidden)
    assert code == 0
