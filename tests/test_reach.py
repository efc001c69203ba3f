"""What ``benchmarks reach`` compares: the likelihood of rows, and when a fit was as good."""

import sys
from math import inf
from pathlib import Path

import numpy as np
from sklearn.mixture import GaussianMixture as Reference

sys.path.append(str(Path(__file__).parent.parent))  # last: dgmm is the one that is installed

from benchmarks import data
from benchmarks.match import save
from benchmarks.peers.harness import score
from benchmarks.reach import (
    DEFAULT,
    ENTRANTS,
    Reached,
    fit,
    line,
    plot,
    problem,
)


def test_the_likelihood_is_scikit_learns() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 3)) * [1, 2, 3]
    model = Reference(2, random_state=0).fit(rows)
    found = score(rows, (model.weights_, model.means_, model.covariances_))
    np.testing.assert_allclose(found, model.score(rows), rtol=1e-12)


def test_when_a_fit_was_first_as_good() -> None:
    ours = Reached(at=(1.0, 2.0, 4.0), scores=(-3.0, -2.0, -2.5))
    assert [ours.to(level) for level in (-4.0, -2.5, -2.0, -1.0)] == [1.0, 2.0, 2.0, inf]
    peer = Reached(at=(20.0,), scores=(-1.9,))
    assert line(peer, ours, 0.0)[-3:] == ["not reached", None, 5.0]
    assert line(peer, ours, 0.1)[-3:] == [2.0, 10.0, 5.0]
    assert line(Reached(failed="given up", budget=60.0), ours, 0.0)[3::4] == ["> 60", "> 15"]
    assert line(Reached(failed="missing"), ours, 0.0)[-1] is None


def test_a_fit_in_its_own_process_and_the_plot(tmp_path: Path) -> None:
    """The default's mixtures after each pass; the last is the one it ended with."""
    made, fresh = problem((2000, 2, 2), 0)
    save(tmp_path, made.rows, data.start(made.rows, 2))
    found = fit(ENTRANTS[DEFAULT], sys.executable, tmp_path, fresh, 0, 120.0)
    assert not found.failed, found.failed
    assert list(found.at) == sorted(found.at)
    assert abs(found.score - max(found.scores)) < made.resolution
    assert found.reading > 0
    plot(tmp_path / "reach.png", [("one", {DEFAULT: found})])
    assert (tmp_path / "reach.png").read_bytes()[:4] == b"\x89PNG"
