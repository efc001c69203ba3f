"""What a model promises its holder: one source of its parameters, and old or new, but whole."""

import _thread
import inspect
import itertools
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import in_shape
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture as Reference

import dgmm
from dgmm import DataError, GaussianMixture, MixtureSearch, PlanError, UsageError
from dgmm.estimators.fits import fit_session, session_of
from dgmm.model.covariance import COVARIANCE_MODELS

PARAMETERS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")
every_structure = pytest.mark.parametrize("kind", COVARIANCE_MODELS)


@pytest.fixture
def model(blobs: np.ndarray) -> GaussianMixture:
    return GaussianMixture(3, random_state=0).fit(blobs)


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_can_be_read_but_not_set(
    model: GaussianMixture, blobs: np.ndarray, name: str
) -> None:
    before = model.predict(blobs)
    with pytest.raises(AttributeError, match=f"^{name} .* can't be set.*from_parameters"):
        setattr(model, name, getattr(model, name) * 2)
    with pytest.raises(AttributeError, match="from_parameters"):
        delattr(model, name)
    for one in (model, pickle.loads(pickle.dumps(model))):
        with pytest.raises(ValueError, match="read-only"):
            getattr(one, name)[...] = 1
        np.testing.assert_array_equal(getattr(one, name), getattr(model, name))
    mixture = model.mixture_
    own = mixture.covariances
    for part in (mixture.weights, mixture.means, own.values, own.precisions_cholesky):
        with pytest.raises(ValueError, match="read-only"):
            part[...] = 1
    np.testing.assert_array_equal(model.predict(blobs), before)


def test_another_mixture_is_honoured(model: GaussianMixture, blobs: np.ndarray) -> None:
    other = GaussianMixture(2, random_state=1).fit(blobs[:500])
    model.mixture_ = other.mixture_
    for name in PARAMETERS:
        np.testing.assert_array_equal(getattr(model, name), getattr(other, name))
    np.testing.assert_array_equal(model.score_samples(blobs), other.score_samples(blobs))


@pytest.mark.parametrize("one", [GaussianMixture(3), MixtureSearch()])
def test_what_is_not_fitted_yet_is_not_there(one: Any) -> None:
    fitted = (*PARAMETERS, "mixture_", "sufficient_statistics_", "plan_")
    fitted += ("n_features_in_", "feature_names_in_")
    for name in (*fitted, "best_estimator_", "converged_", "n_iter_"):
        assert not hasattr(one, name)
        assert getattr(one, name, None) is None
    assert [
        name for name, _ in inspect.getmembers(one) if name.endswith("_") and name[0] != "_"
    ] == []
    assert set(PARAMETERS) & set(dir(one)) <= set(dir(type(one)))
    for name in dir(one):
        getattr(one, name, None)  # no other error than AttributeError
    for use in (one.predict, one.predict_proba, one.score_samples, one.score, one.bic, one.aic):
        with pytest.raises(NotFittedError):
            use(np.zeros((2, 2)))
    with pytest.raises(NotFittedError):
        one.sample()


def parameters(kind: str, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and covariances (K, D, D), of this structure."""
    rng = np.random.default_rng(3)
    a = rng.normal(size=(3, 2, 2))
    dense = a @ a.swapaxes(1, 2) + 0.1 * np.eye(2)
    if kind == "tied":
        dense[:] = dense[0]
    elif kind == "diag":
        dense *= np.eye(2)
    elif kind == "spherical":
        dense = dense[:, :1, :1] * np.eye(2)
    return np.array([0.5, 0.3, 0.2]), 3 * scale * rng.normal(size=(3, 2)), dense * scale**2


def turned(matrices: np.ndarray) -> np.ndarray:
    """With rows and columns the other way round, so that a lower triangle is an upper one."""
    return matrices[..., ::-1, ::-1]


def reference(kind: str, weights: Any, means: Any, covariances: Any) -> Reference:
    """scikit-learn's model of these parameters, which are what it goes by."""
    model = Reference(len(weights), covariance_type=kind)
    model.weights_, model.means_, model.covariances_ = weights, means, covariances
    dense = {
        "full": lambda: np.linalg.cholesky(turned(np.linalg.inv(covariances))),
        "tied": lambda: np.linalg.cholesky(turned(np.linalg.inv(covariances))),
        "diag": lambda: 1 / np.sqrt(covariances),
        "spherical": lambda: 1 / np.sqrt(covariances),
    }[kind]()
    model.precisions_cholesky_ = dense if dense.ndim < 2 or kind == "diag" else turned(dense)
    return model


@every_structure
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_model_of_given_parameters(tmp_path: Path, kind: str, scale: float) -> None:
    weights, means, dense = parameters(kind, scale)
    covariances = in_shape(kind, dense)
    theirs = reference(kind, weights, means, covariances)
    rows = scale * np.random.default_rng(0).normal(size=(200, 2)) * 3
    of_covariances = GaussianMixture.from_parameters(
        weights, means, covariances, covariance_type=kind, random_state=0
    )
    of_precisions = GaussianMixture.from_parameters(
        weights, means, precisions=in_shape(kind, np.linalg.inv(dense)), covariance_type=kind
    )
    of_precisions.save(tmp_path / "m.dgmm")
    for ours in (of_covariances, of_precisions, dgmm.load(tmp_path / "m.dgmm")):
        np.testing.assert_allclose(ours.covariances_, covariances, rtol=1e-12)
        np.testing.assert_allclose(
            ours.precisions_cholesky_, theirs.precisions_cholesky_, rtol=1e-9, atol=1e-12 / scale
        )
        np.testing.assert_allclose(ours.score_samples(rows), theirs.score_samples(rows), rtol=1e-9)
        np.testing.assert_array_equal(ours.predict(rows), theirs.predict(rows))
        assert ours.bic(rows) == pytest.approx(theirs.bic(rows), rel=1e-9)
        assert (ours.n_components, ours.n_features_in_) == (3, 2)
        assert not hasattr(ours, "sufficient_statistics_")
        with pytest.raises(UsageError, match="without the statistics"):
            ours.partial_fit(rows)
    drawn, labels = of_covariances.sample(40_000)
    shares = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(shares, weights, atol=5 * np.sqrt(0.25 / len(labels)))
    np.testing.assert_allclose(
        np.cov(drawn[labels == 0].T), dense[0], rtol=0.1, atol=0.1 * dense[0].max()
    )
    with pytest.raises(NotFittedError):
        clone(of_covariances).predict(rows)


@every_structure
def test_a_fit_goes_on_from_given_parameters(kind: str) -> None:
    """Against the same start by the constructor's parameters."""
    weights, means, dense = parameters(kind)
    rows = np.random.default_rng(0).normal(size=(500, 2)) * 3
    ours = GaussianMixture.from_parameters(
        weights,
        means,
        in_shape(kind, dense),
        covariance_type=kind,
        strategy="em",
        warm_start=True,
        max_iter=7,
        tol=0,
    )
    start = {"weights_init": weights, "means_init": means}
    start["precisions_init"] = in_shape(kind, np.linalg.inv(dense))
    other = GaussianMixture(
        3, covariance_type=kind, strategy="em", max_iter=7, tol=0, random_state=0, **start
    )
    with pytest.warns(ConvergenceWarning):
        ours.fit(rows)
    with pytest.warns(ConvergenceWarning):
        other.fit(rows)
    np.testing.assert_allclose(ours.means_, other.means_, rtol=1e-9)
    np.testing.assert_allclose(ours.lower_bounds_, other.lower_bounds_, rtol=1e-9)
    assert ours.partial_fit(rows).sufficient_statistics_.rows == 1000


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({"covariances": None}, "either covariances or precisions"),
    "both": ({"precisions": np.ones((2, 1, 1))}, "either covariances or precisions"),
    "no structure": ({"covariance_type": "round"}, "covariance_type must be one of"),
    "weights of 2": (
        {"weights": [1.0, 1.0]},
        r"should be normalized, but got sum\(weights\) = 2\.0",
    ),
    "a negative weight": ({"weights": [1.5, -0.5]}, r"max value 1\.50000, min value -0\.50000"),
    "a weight too many": ({"weights": [0.5, 0.25, 0.25]}, r"the shape of \(2,\), but got \(3,\)"),
    "means of no shape": ({"means": [0.0, 1.0]}, "means must have shape"),
    "NaN": ({"means": [[0.0], [np.nan]]}, "means holds NaN"),
    "texts": ({"means": [["a"], ["b"]]}, "means must be numbers"),
    "a negative variance": ({"covariances": [[[1.0]], [[-1.0]]]}, "covariances must be symmetric"),
    "no variance": ({"covariances": [[[1.0]], [[0.0]]]}, "covariances must be symmetric positive"),
    "another shape": ({"covariances": [1.0, 1.0]}, "'covariances' should have the shape"),
    "a negative precision": (
        {"covariances": None, "precisions": [[[1.0]], [[-1.0]]]},
        "precisions must be symmetric positive",
    ),
    "asymmetric": (
        {"means": np.zeros((2, 2)), "covariances": [np.eye(2), [[1.0, 0.5], [0.0, 1.0]]]},
        "not symmetric",
    ),
    "asymmetric in small units": (
        {"means": np.zeros((2, 2)), "covariances": [np.eye(2), [[1.0, 5e-13], [1e-13, 1e-24]]]},
        "not symmetric",
    ),
    "indefinite": (
        {"means": np.zeros((2, 2)), "covariances": [np.eye(2), [[1.0, 2.0], [2.0, 1.0]]]},
        "covariances must be symmetric positive",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_parameters_of_no_mixture_are_refused(what: str) -> None:
    change, message = BAD[what]
    good = {"weights": [0.5, 0.5], "means": [[0.0], [9.0]], "covariances": np.ones((2, 1, 1))}
    with pytest.raises(UsageError, match=message):
        GaussianMixture.from_parameters(**{**good, **change})


# ---------------------------------------------------------------- old or new, but whole

ROWS = np.random.default_rng(5).normal(size=(90, 2)) + [[0, 0], [6, 0], [0, 6]] * 30
NAMED = pd.DataFrame(ROWS, columns=["a", "b"])
OTHER = np.random.default_rng(6).normal(size=(80, 3))


def _spoilt(kind: type[BaseException], after: int) -> da.Array:
    """Rows that can't be read once so many of their blocks have been."""
    read = itertools.count()

    def look(block: np.ndarray) -> np.ndarray:
        number = next(read)
        if number >= after and kind is not KeyboardInterrupt:
            raise kind("gone")
        if number == after and kind is KeyboardInterrupt:
            _thread.interrupt_main()  # as Ctrl-C does
        return block

    return da.from_array(ROWS, chunks=(30, 2)).map_blocks(look, dtype=float, meta=ROWS[:0])


def _abandoned(model: Any, passes: int, thrown: BaseException | None) -> None:
    """A fit that is left after so many passes, or half way through, or by an exception."""
    with _endless(model):
        steps = model.fit_passes(OTHER)
        for _ in range(passes):
            next(steps)
        if thrown is None:
            steps.close()
        else:
            steps.throw(thrown)


@contextmanager
def _endless(model: Any) -> Iterator[None]:
    """While inside, fits converge where EM stands still only."""
    owner = getattr(model, "estimator", None) or model
    kept = owner.tol
    owner.tol = 0.0
    try:
        yield
    finally:
        owner.tol = kept


def _with(model: Any, name: str, value: Any, *rows: Any) -> None:
    """A fit with another parameter, for once."""
    owner = getattr(model, "estimator", None) or model
    kept = getattr(owner, name)
    try:
        setattr(owner, name, value)
        model.fit(*rows)
    finally:
        setattr(owner, name, kept)


def _impatient(model: Any, rows: Any) -> None:
    model.fit(rows)
    time.sleep(2)  # where the interrupt comes late


def _warned(model: Any) -> None:
    with warnings.catch_warnings(), _endless(model):
        warnings.simplefilter("error")
        _with(model, "max_iter", 1, OTHER)


FAILING: dict[str, tuple[Callable[[Any, int], Any], type[BaseException]]] = {
    "NaN": (lambda m, n: m.fit(np.where(OTHER > 1, np.nan, OTHER)), DataError),
    "too few rows": (lambda m, n: m.fit(OTHER[:1]), DataError),
    "texts": (lambda m, n: m.fit(np.full((90, 3), "a")), ValueError),
    "one dimension": (lambda m, n: m.fit(OTHER[0]), DataError),
    "nothing": (lambda m, n: m.fit("nowhere.zarr"), DataError),
    "names of another kind": (
        lambda m, n: m.fit(pd.DataFrame(OTHER, columns=[1, "b", "c"])),
        TypeError,
    ),
    "weights of nothing": (lambda m, n: m.fit(OTHER, sample_weight=np.zeros(80)), DataError),
    "weights below 0": (lambda m, n: m.fit(OTHER, sample_weight=np.full(80, -1.0)), DataError),
    "no memory": (lambda m, n: _with(m, "memory", "1MiB", OTHER), PlanError),
    "a parameter of no meaning": (lambda m, n: _with(m, "tol", -1, OTHER), UsageError),
    "a start of no meaning": (lambda m, n: _with(m, "means_init", [[1.0]], OTHER), UsageError),
    "left": (lambda m, n: _abandoned(m, n, None), GeneratorExit),
    "an error outside": (lambda m, n: _abandoned(m, n + 1, OSError("full")), OSError),
    "Ctrl-C outside": (lambda m, n: _abandoned(m, n + 1, KeyboardInterrupt()), KeyboardInterrupt),
    "an error in a sweep": (lambda m, n: m.fit(_spoilt(OSError, 2 * n)), DataError),
    "Ctrl-C in a sweep": (
        lambda m, n: _impatient(m, _spoilt(KeyboardInterrupt, n)),
        KeyboardInterrupt,
    ),
    "a warning taken for an error": (lambda m, n: _warned(m), ConvergenceWarning),
}

ASKED: dict[str, Callable[[Any], Any]] = {
    "plan": lambda m: m.plan(OTHER),
    "pods": lambda m: session_of(m, OTHER).pods(workers=2, threads=1),
    "session": lambda m: session_of(m, OTHER).plan,
    "plan of named rows": lambda m: m.plan(pd.DataFrame(OTHER, columns=list("xyz"))),
    "repr": repr,
    "html": lambda m: m._repr_html_(),
    "dir": lambda m: [getattr(m, name, None) for name in dir(m)],
    "clone": clone,
    "pickle": pickle.dumps,
}

small = partial(GaussianMixture, random_state=0, cache="none")
OLD: dict[str, Callable[[], Any]] = {
    "unfitted": lambda: small(2),
    "fitted": lambda: small(2).fit(ROWS),
    "named": lambda: small(2, strategy="em").fit(NAMED),
    "given": lambda: GaussianMixture.from_parameters(
        [0.5, 0.5], np.eye(2), np.stack([np.eye(2)] * 2), cache="none"
    ),
    "updated": lambda: small(2).fit(NAMED).partial_fit(NAMED),
    "search": lambda: MixtureSearch(small(), n_components=(1, 2)),
    "searched": lambda: MixtureSearch(
        small(), n_components=(2, 3), covariance_type=("tied", "diag")
    ).fit(NAMED),
}


def assert_unchanged(model: Any, attributes: dict[str, Any], content: bytes) -> None:
    assert vars(model).keys() == attributes.keys()
    assert all(vars(model)[name] is value for name, value in attributes.items())
    assert pickle.dumps(vars(model)) == content


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(OLD)), st.sampled_from(sorted(FAILING)), st.integers(0, 3))
def test_a_fit_that_fails_leaves_the_old_model_whole(old: str, failing: str, passes: int) -> None:
    model = OLD[old]()
    attributes, content = dict(vars(model)), pickle.dumps(vars(model))
    kept = getattr(model, "mixture_", None)
    fit, error = FAILING[failing]
    if error is GeneratorExit:
        fit(model, passes)
    else:
        with pytest.raises(error):
            fit(model, passes)
        if error is KeyboardInterrupt and getattr(model, "mixture_", None) is not kept:
            # Where the machine is busy the interrupt comes late: then the fit has ended.
            assert model.fit_info_["stopped_by"] in ("interrupted", "gap", "tol")
            assert model.score(ROWS) == pytest.approx(model.fit_info_["score"], rel=1e-12)
            return
    assert_unchanged(model, attributes, content)


@pytest.mark.parametrize("old", OLD)
def test_questions_change_nothing(old: str) -> None:
    model = OLD[old]()
    attributes, content = dict(vars(model)), pickle.dumps(vars(model))
    for ask in ASKED.values():
        ask(model)
        assert_unchanged(model, attributes, content)
    if not hasattr(model, "n_features_in_"):
        return
    names = getattr(model, "feature_names_in_", None)
    known, wide = (ROWS, OTHER) if names is None else (NAMED, NAMED.assign(c=0.0))
    for ask in (model.predict, model.predict_proba, model.score_samples, model.score, model.bic):
        ask(known)
        with pytest.raises(ValueError, match="feature"):
            ask(wide)
    assert_unchanged(model, attributes, content)


@pytest.mark.parametrize("old", ["fitted", "searched"])
def test_a_session_that_told_its_plan_is_run(old: str) -> None:
    """Rows are opened once, and parameters are those of when it was made."""
    model, same = OLD[old](), OLD[old]().fit(OTHER)
    session = session_of(model, OTHER)
    assert (session.plan.rows, session.plan.n_features) == OTHER.shape
    (getattr(model, "estimator", None) or model).set_params(max_iter=1, reg_covar=1.0)
    *_, last = fit_session(model, session)
    best, other = (getattr(each, "best_estimator_", each) for each in (model, same))
    assert best.plan_ is session.plan
    assert best.lower_bounds_ == other.lower_bounds_
    assert last.passes == best.fit_info_["passes"]
    np.testing.assert_array_equal(best.means_, other.means_)


@pytest.mark.parametrize("old", ["named", "updated", "searched"])
def test_names_are_those_of_the_last_fit(tmp_path: Path, old: str) -> None:
    model = OLD[old]()
    assert list(model.feature_names_in_) == ["a", "b"]
    model.fit(OTHER)
    assert not hasattr(model, "feature_names_in_")
    best = getattr(model, "best_estimator_", model)
    best.save(tmp_path / "m.dgmm")
    back = dgmm.load(tmp_path / "m.dgmm")
    assert back.n_features_in_ == model.n_features_in_ == 3
    np.testing.assert_array_equal(back.predict(OTHER), model.predict(OTHER))
    model.fit(pd.DataFrame(OTHER, columns=list("xyz")))
    best = getattr(model, "best_estimator_", model)
    best.save(tmp_path / "m.dgmm", overwrite=True)
    assert list(dgmm.load(tmp_path / "m.dgmm").feature_names_in_) == list("xyz")
    model.fit(da.from_array(OTHER))
    assert not hasattr(model, "feature_names_in_")


INTERRUPTED = """
import _thread
import dask.array as da, numpy as np
from dgmm import GaussianMixture

rows = np.random.default_rng(0).normal(size=(400, 2))
for after in range(4):
    seen = iter(range(10**6))

    def look(block):
        if next(seen) == after:
            _thread.interrupt_main()  # as Ctrl-C does
        return block

    lazy = da.from_array(rows, chunks=(10, 2)).map_blocks(look, dtype=float, meta=rows[:0])
    try:
        GaussianMixture(2, n_jobs=2 + after).fit(lazy)  # each with threads of its own
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_python_ends_after_an_interrupt_that_came_as_threads_were_started() -> None:
    """No thread is left that nobody tells to end."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "interrupted" in done.stdout
