"""Groups of components: against sums over all pairs, mclust, and formulas in the clear."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from copy import deepcopy
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client

import dgmm
from dgmm import engine
from dgmm.cli.commands import main
from dgmm.inference import label_entropy

MODEL = dgmm.GaussianMixture.from_parameters(
    [0.3, 0.2, 0.2, 0.2, 0.1],
    [[0.0, 0], [1.5, 0.5], [6, 6], [7, 7.5], [3, 3]],
    [np.eye(2), [[2.0, 1], [1, 3]], np.eye(2), 0.5 * np.eye(2), np.eye(2)],
)


def drawn(rows: int, model: dgmm.GaussianMixture = MODEL, seed: int = 0) -> np.ndarray:
    return np.asarray(model.mixture_.sample(rows, np.random.default_rng(seed))[0])


def h(t: np.ndarray) -> np.ndarray:
    return np.where(t > 0, t * np.log(np.where(t > 0, t, 1)), 0)


def dense(t: np.ndarray, w: np.ndarray) -> tuple[list[list[int]], list[float]]:
    """The pairs and the entropies of K, K - 1, ... groups, with each join tried on all rows."""
    parts, numbers, pairs = [t[:, k] for k in range(t.shape[1])], list(range(t.shape[1])), []
    entropies = [-(h(t).sum(axis=1) @ w)]
    while len(parts) > 1:
        gains = {
            (i, j): (h(parts[i] + parts[j]) - h(parts[i]) - h(parts[j])) @ w
            for i, j in combinations(range(len(parts)), 2)
        }
        i, j = max(gains, key=lambda pair: gains[pair])
        pairs.append([numbers[i], numbers[j]])
        parts[i], numbers[i] = parts[i] + parts[j], t.shape[1] + len(pairs) - 1
        del parts[j], numbers[j]
        entropies.append(-(sum(h(each) for each in parts) @ w))
    return pairs, entropies


@pytest.mark.parametrize("unlike", [False, True])
def test_the_tree_is_that_of_all_joins_tried(unlike: bool) -> None:
    """With weights and holes; also of rows that are unlike what the mixture expects."""
    rng = np.random.default_rng(1)
    rows = rng.uniform(-4, 9, size=(3000, 2)) if unlike else drawn(3000)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    weights = rng.integers(0, 3, len(rows)).astype(float)
    model = deepcopy(MODEL).set_params(missing="marginalize")
    seen = ~np.isnan(rows).all(axis=1)
    pairs, entropies = dense(model.predict_proba(rows[seen]), weights[seen] / weights[seen].sum())
    found = model.merge(rows, sample_weight=weights)
    assert found.pairs.tolist() == pairs
    np.testing.assert_allclose(found.levels[::-1], entropies, rtol=1e-9, atol=1e-12)
    assert (found.costs >= 0).all()
    assert found.rows == (seen & (weights > 0)).sum()


def test_the_tree_is_right_whatever_was_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what comes up is foreseen badly, there are more sweeps, and the same tree."""
    rows = drawn(2000)
    sweep, asked = engine.in_memory_sweep(rows), []

    def counted(fn: Any, given: Any) -> Any:
        asked.append(len(given.pairs))
        return sweep(fn, given)

    expected = MODEL.merge(rows, sweep=counted)
    assert len(asked) == 1
    monkeypatch.setattr(label_entropy, "_by_sample", lambda *_: lambda a, b: float(min(a | b)))
    monkeypatch.setattr(label_entropy, "_sharpened", lambda rough, *_: rough)
    again = MODEL.merge(rows, sweep=counted)
    assert 2 < len(asked) <= 5
    assert again.pairs.tolist() == expected.pairs.tolist()
    np.testing.assert_array_equal(again.costs, expected.costs)


def test_noise_and_empty_components_are_of_no_cluster() -> None:
    """Noise is never joined; a component of no weight is joined first, and costs nothing."""
    own = {"weights": [0.4, 0.0, 0.3, 0.2], "means": [[0.0], [50.0], [3.0], [9.0]]}
    rows = np.concatenate([drawn(800)[:, :1], [[30.0], [-20.0]]])
    model = dgmm.GaussianMixture(3, noise_component=0.1, random_state=0).fit(rows)
    found = model.merge(rows)
    t = model.predict_proba(rows)
    every = np.full(len(rows), 1 / len(rows))
    pairs, entropies = dense(t[:, :3], every)
    assert found.pairs.tolist() == pairs
    of_noise = -(h(t[:, 3]) @ every)
    np.testing.assert_allclose(found.levels[::-1], np.array(entropies) + of_noise, rtol=1e-9)
    groups = found.groups(2)
    summed = np.stack([t[:, :3][:, groups == g].sum(axis=1) for g in (0, 1)] + [t[:, 3]], axis=1)
    assert (model.predict_groups(rows, groups) % 3 == summed.argmax(axis=1)).all()
    ones = np.ones((4, 1, 1))
    weights = np.array(own["weights"]) / 0.9
    empty = dgmm.GaussianMixture.from_parameters(weights, own["means"], ones)
    for found in (empty.merge(rows), empty.merge(criterion="runnalls")):
        assert (found.pairs[0].tolist(), found.costs[0]) == ([0, 1], 0)
        assert len(set(found.groups(3)[[0, 2, 3]])) == 3


R = """
suppressMessages(library(mclust)); data(Baudry_etal_2010_JCGS_examples)
say <- function(...) cat(..., "\\n")
for (asked in list(list("ex4.1", 6, "EEV"), list("ex4.2", 7, "EEV"), list("ex4.4.1", 4, "VVI"))) {
  x <- get(asked[[1]]); m <- Mclust(x, asked[[2]], asked[[3]], verbose = FALSE); p <- m$parameters
  m$z <- estep(x, m$modelName, p)$z; found <- clustCombi(m); best <- clustCombiOptim(found)
  say(format(c(m$G, nrow(x), p$pro, p$mean, p$variance$sigma, t(x)), digits = 17))
  say(format(sapply(found$combiz, function(z) -sum(mclust:::xlog(z))), digits = 17))
  say(best$cluster.combi)
}"""


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="no R")
def test_the_published_examples_come_out_as_published() -> None:
    """Baudry et al. (2010), 4.1, 4.2 and 4.4.1: 6, 7 and 4 components are 4, 5 and 3 clusters.

    Against mclust's clustCombi, of its own fits: entropies, the number of clusters, and labels.
    """
    ran = subprocess.run(["Rscript", "-e", R], capture_output=True, text=True)
    if ran.returncode:
        pytest.skip("R has no mclust")
    lines = [np.array(line.split(), float) for line in ran.stdout.splitlines()]
    batched = [lines[i : i + 3] for i in range(0, len(lines), 3)]
    for clusters, (told, entropies, labels) in zip((4, 5, 3), batched, strict=True):
        count, rows = int(told[0]), int(told[1])
        w, m, s, x = np.split(told[2:], np.cumsum([count, 2 * count, 4 * count]))
        own = s.reshape(count, 2, 2)
        model = dgmm.GaussianMixture.from_parameters(w / w.sum(), m.reshape(count, 2), own)
        x = x.reshape(rows, 2)
        found = model.merge(x)
        np.testing.assert_allclose(found.levels * rows, entropies, rtol=1e-7, atol=1e-7)
        assert found.cut == clusters
        pairs = set(zip(model.predict_groups(x, found.groups()), labels, strict=True))
        assert len(pairs) == clusters


def test_the_same_bits_on_a_cluster(clusters: Mapping[int, Client], tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", drawn(20_000))
    dataset = dgmm.open_dataset(str(tmp_path / "rows.npy")).rechunk(64 << 10)
    assert dataset.blocks > 4
    here = MODEL.merge(dataset)
    there = MODEL.merge(dataset, sweep=engine.over(dataset, clusters[2]))
    np.testing.assert_array_equal(here.levels, there.levels)
    assert here.pairs.tolist() == there.pairs.tolist()


def test_divergences_are_those_of_the_formulas() -> None:
    """And Runnalls's bound is above the relative entropy; units don't matter."""
    found = MODEL.merge(criterion="runnalls")
    mixture = MODEL.mixture_
    w, m, s = mixture.weights, mixture.means, mixture.covariances.dense()

    def normal(group: list[int]) -> tuple[float, np.ndarray, np.ndarray]:
        weight = w[group].sum()
        mean = w[group] @ m[group] / weight
        second = sum(w[k] * (s[k] + np.outer(m[k], m[k])) for k in group) / weight
        return weight, mean, second - np.outer(mean, mean)

    for count in (4, 3, 1):
        groups, whole = found.groups(count), 0.0
        for k, g in enumerate(groups):
            _, mean, cov = normal(np.flatnonzero(groups == g).tolist())
            away, inverse = m[k] - mean, np.linalg.inv(cov)
            spread = np.trace(inverse @ s[k]) + away @ inverse @ away - 2
            whole += w[k] * 0.5 * (spread + np.linalg.slogdet(cov)[1] - np.linalg.slogdet(s[k])[1])
        assert found.levels[count - 1] == pytest.approx(whole, rel=1e-9)
        less = MODEL.reduce(count)
        assert less.fit_info_["divergence_bound"] == found.levels[count - 1]
        rows = drawn(20_000)
        divergence = MODEL.score(rows) - less.score(rows)
        assert -0.001 < divergence < whole + 0.01
        for a, b in zip(MODEL.mixture_.moments(), less.mixture_.moments(), strict=True):
            np.testing.assert_allclose(a, b)
    near = MODEL.merge(criterion="bhattacharyya")
    middle, away = (s[2] + s[3]) / 2, m[2] - m[3]
    logs = [np.linalg.slogdet(each)[1] for each in (middle, s[2], s[3])]
    distance = away @ np.linalg.solve(middle, away) / 8 + logs[0] / 2 - (logs[1] + logs[2]) / 4
    assert near.costs[near.pairs.tolist().index([2, 3])] == pytest.approx(distance)
    unit = np.array([1e9, 1e-6])
    scaled = dgmm.GaussianMixture.from_parameters(w, m * unit, s * np.outer(unit, unit))
    for criterion in ("runnalls", "bhattacharyya"):
        ours, theirs = (each.merge(criterion=criterion) for each in (MODEL, scaled))
        np.testing.assert_allclose(ours.levels, theirs.levels, rtol=1e-7, atol=1e-12)


def test_groups_are_kept_until_the_model_is_another(tmp_path: Path) -> None:
    rows = drawn(600)
    model = dgmm.GaussianMixture(4, random_state=0).fit(rows)
    model.keep_groups([0, 1, 1, 0]).save(tmp_path / "model.dgmm")
    kept = dgmm.load(tmp_path / "model.dgmm")
    assert kept.groups_ == (0, 1, 1, 0)
    t = model.predict_proba(rows)
    other = (t[:, 1] + t[:, 2] > t[:, 0] + t[:, 3]).astype(int)
    assert (kept.predict_groups(rows) == other).all()
    assert dgmm.align(model.mixture_.chosen([1, 0, 2, 3]), model).model.groups_ == (1, 0, 1, 0)
    assert not hasattr(kept.update(kept.summarize(rows)), "groups_")
    for wrong in ([0, 1, 1], [0, 2, 2, 0], [0.0, 1, 1, 0], "abcd"):
        with pytest.raises(dgmm.UsageError, match="groups must be"):
            model.keep_groups(wrong)


@pytest.mark.filterwarnings("ignore:.*as good as normal:dgmm.DegenerateWarning")
def test_what_makes_no_sense_is_refused() -> None:
    for words, said in (
        ({}, "needs rows"),
        ({"X": drawn(9), "criterion": "runnalls"}, "needs no rows"),
        ({"criterion": "ward"}, "criterion must be"),
    ):
        with pytest.raises(dgmm.UsageError, match=said):
            MODEL.merge(**words)
    tails = dgmm.GaussianMixture(2, tails="student", random_state=0).fit(drawn(300))
    with pytest.raises(dgmm.UsageError, match="heavy tails"):
        tails.reduce(1)
    with pytest.raises(dgmm.UsageError, match="1 to 5 groups"):
        MODEL.reduce(6)
    with pytest.raises(dgmm.UsageError, match="which groups"):
        MODEL.predict_groups(drawn(9))


def test_the_commands(tmp_path: Path) -> None:
    rows = drawn(800)
    np.save(tmp_path / "rows.npy", rows)
    MODEL.save(tmp_path / "model.dgmm")
    data, model, out = (str(tmp_path / name) for name in ("rows.npy", "model.dgmm", "out.dgmm"))

    def run(*words: str) -> Any:
        ran = CliRunner().invoke(main, words)
        assert ran.exit_code == 0, ran.output
        return ran.output

    quiet = ("--quiet", "--json")
    found = json.loads(run("merge", data, "-m", model, "-o", out, "--groups", "2", *quiet))
    expected = MODEL.merge(rows)
    assert found["pairs"] == expected.pairs.tolist()
    assert dgmm.load(out).groups_ == tuple(expected.groups(2)) == tuple(found["groups"])
    assert "entropy of" in run("merge", data, "-m", model, "--quiet")
    assert "distance" in run("merge", "-m", model, "--criterion", "bhattacharyya")
    labels = str(tmp_path / "labels.zarr")
    told = json.loads(run("predict", data, "-m", out, "-o", labels, "--kind", "groups", *quiet))
    counts = np.bincount(MODEL.predict_groups(rows, expected.groups(2)))
    assert told["rows_of_groups"] == counts.tolist()
    assert '"groups": [' in run("show", out, "--json")
    less = json.loads(run("reduce", model, "-k", "2", "-o", str(tmp_path / "less.dgmm"), "--json"))
    assert less["divergence_bound"] == MODEL.reduce(2).fit_info_["divergence_bound"]
    assert CliRunner().invoke(main, ["merge", "-m", model]).exit_code == 2
    odd = CliRunner().invoke(main, ["merge", "-m", model, "--criterion=runnalls", "--columns=a"])
    assert (odd.exit_code, "without DATA, leave these" in odd.output) == (2, True)
    assert CliRunner().invoke(main, ["predict", data, "-m", model, "-o", labels, "--overwrite",
                                     "--kind", "groups"]).exit_code == 2  # fmt: skip
