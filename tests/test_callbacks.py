"""Callbacks are told what happens; progress is shown where a fit is watched."""

import io
import os
import re
import textwrap
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone

import dgmm
from dgmm import BayesianGaussianMixture, Event, GaussianMixture, MixtureSearch, ProgressBar


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(20_000, 3)) + 4 * rng.integers(0, 3, size=(20_000, 1))


def test_what_happens_is_told_in_order(rows: NDArray[np.float64]) -> None:
    events: list[Event] = []
    model = GaussianMixture(3, random_state=0, callbacks=[events.append]).fit(rows)
    kinds = [each.kind for each in events]
    assert (kinds[0], kinds[-1], kinds.count("start")) == ("start", "end", 1)
    passes = [each for each in events if each.kind == "pass"]
    assert [each.passes for each in passes] == list(range(1, model.fit_info_["passes"] + 1))
    assert passes[-1].numbers["score"] == pytest.approx(model.fit_info_["score"], rel=1e-12)
    assert passes[-1].message.startswith(f"pass {len(passes)}: score ")
    assert passes[-1].meter.rows == len(passes) * 20_000
    stages = [each.stage for each in events if each.kind == "samples"]
    assert any("start 1 of" in each for each in stages)
    assert stages[-1] == ""
    sampled = sum(each.numbers["seconds_on_samples"] for each in passes)
    assert sampled == pytest.approx(model.fit_info_["seconds_on_samples"])
    again = GaussianMixture(3, random_state=0).fit(rows)
    np.testing.assert_array_equal(again.means_, model.means_)  # watching changes nothing


@pytest.mark.filterwarnings("ignore")
def test_searches_and_posteriors_are_watched_too(rows: NDArray[np.float64]) -> None:
    events: list[Event] = []
    some = rows[::20]
    one = GaussianMixture(random_state=0, callbacks=[events.append])
    search = MixtureSearch(one, n_components=(1, 2)).fit(some)
    assert events[-2].numbers["criterion"] == pytest.approx(-search.best_score_)
    assert [each.kind for each in events].count("start") == 1  # one for all candidates
    events.clear()
    BayesianGaussianMixture(2, callbacks=[events.append], max_iter=5).fit(some)
    assert [events[0].kind, events[-1].kind] == ["start", "end"]


def test_an_error_in_a_callback_ends_the_fit(rows: NDArray[np.float64]) -> None:
    kinds: list[str] = []

    def fail(event: Event) -> None:
        kinds.append(event.kind)
        if event.kind == "pass" and event.passes == 2:
            raise OSError("the disk is full")

    model = GaussianMixture(3, random_state=0).fit(rows)
    before = model.mixture_
    with pytest.raises(OSError, match="the disk is full"):
        model.set_params(callbacks=[fail]).fit(rows)
    assert model.mixture_ is before
    assert kinds[-1] == "end"


def test_a_callback_may_stop_a_fit(rows: NDArray[np.float64]) -> None:
    def stop(event: Event) -> None:
        if event.passes == 2 and event.kind == "pass":
            raise KeyboardInterrupt

    model = GaussianMixture(3, random_state=0, strategy="em", tol=0, callbacks=[stop])
    with pytest.raises(KeyboardInterrupt):
        model.fit(rows)
    assert not hasattr(model, "mixture_") or model.fit_info_["stopped_by"] == "interrupted"


def test_callbacks_are_parameters(rows: NDArray[np.float64], tmp_path: Path) -> None:
    model = GaussianMixture(2, callbacks=[ProgressBar()], random_state=0)
    assert repr(clone(model).callbacks) == "[ProgressBar()]"
    model.set_params(callbacks=[lambda event: None]).fit(rows).save(tmp_path / "model.dgmm")
    assert dgmm.load(tmp_path / "model.dgmm").callbacks is None
    for bad in (print, [1], "print", {print}):
        with pytest.raises(ValueError, match="callbacks must be a list of functions"):
            GaussianMixture(2, callbacks=bad).fit(rows)  # type: ignore[arg-type]


def test_a_line_for_each_pass_where_nobody_watches(
    rows: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    model = GaussianMixture(3, random_state=0, callbacks=[ProgressBar()]).fit(rows)
    lines = out.getvalue().splitlines()
    assert len(lines) == model.fit_info_["passes"]
    assert all(line.startswith(f"pass {k}: ") for k, line in enumerate(lines, 1))


def test_a_bar_in_a_terminal(rows: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    seen: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # which is how a terminal ends
            while part := os.read(ours, 1 << 16):
                seen.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    monkeypatch.setattr("dgmm.report.watching.SECONDS", 0.001)
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        model = GaussianMixture(3, random_state=0, callbacks=[ProgressBar()]).fit(rows)
    reader.join()
    os.close(ours)
    parts = b"".join(seen).decode().replace("\r\n", "\n").split("\r\x1b[K")
    assert any(re.fullmatch(r"on samples: start 1 .*? ━* *0:00", each) for each in parts)
    lines = [each for each in parts if "\n" in each]
    assert lines[0].startswith("pass 1: 20,000 rows x 3 read")
    assert len(lines) == model.fit_info_["passes"]
    assert parts[-1] == ""  # and no bar is left


def test_a_bar_in_a_notebook(tmp_path: Path) -> None:
    """In a real kernel: the bar is one output, which changed as the fit went on."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    code = """
        import numpy as np, dgmm.report.watching
        from dgmm import GaussianMixture, ProgressBar
        dgmm.report.watching.SECONDS = 0.01
        rows = np.random.default_rng(0).normal(size=(2_000, 3))
        _ = GaussianMixture(2, random_state=0, callbacks=[ProgressBar()], max_iter=3).fit(rows)
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(code))])
    messages: list[dict[str, Any]] = []

    class Client(nbclient.NotebookClient):  # type: ignore[misc, name-defined]
        def process_message(self, message: dict[str, Any], *more: Any) -> Any:
            messages.append(message)
            return super().process_message(message, *more)

    Client(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    changes = [each for each in messages if each["msg_type"] == "update_display_data"]
    assert len(changes) >= 3
    bars = [each for each in notebook.cells[0].outputs if each.output_type == "display_data"]
    assert len(bars) == 1
    assert '<progress max="1" value="1.000"' in bars[0].data["text/html"]
    assert re.search(r"\d+ passes in 0:0\d", bars[0].data["text/plain"])
    assert any("pass 2: score" in str(each["content"]) for each in changes)
