"""Equals scikit-learn where scikit-learn can go, and keeps its conventions where it can't."""

import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dgmm import GaussianMixture
from dgmm.model.covariance import COVARIANCE_MODELS

exact = partial(GaussianMixture, strategy="em", precision="float64")
"""The textbook's algorithm with every pass in double precision, as scikit-learn's."""

K = 4
ROW_CHUNKS = (1000, 0, 700, 1300)
"""Of the Dask form: uneven, one empty; its columns are split too."""

FITTED = ("weights_", "means_", "covariances_", "precisions_cholesky_")

# Both programs compute the same formulas in float64 in another order.  In the product form an
# E-step's log-densities may be off by kernel.TOLERANCE = 1e-9 at the very most, and that bound is
# an upper one by some orders of magnitude.
RTOL = 1e-9


def _dask(x: np.ndarray, folder: Path) -> da.Array:
    columns = (2, *[1] * (x.shape[1] - 2)) if x.ndim > 1 else ()
    return da.from_array(x, chunks=(ROW_CHUNKS, columns) if columns else (ROW_CHUNKS,))


def _zarr(x: np.ndarray, folder: Path) -> str:
    path = str(folder / f"{x.ndim}d.zarr")
    zarr.create_array(path, data=x, chunks=(640, *x.shape[1:]))
    return path


FORMS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "numpy": lambda x, folder: x,
    "dask": _dask,
    "zarr": _zarr,
}

every_structure = pytest.mark.parametrize("kind", COVARIANCE_MODELS)
every_form = pytest.mark.parametrize("form", FORMS)


def start(x: np.ndarray, kind: str) -> dict[str, Any]:
    """Starting values that both programs take: rows as means, unequal weights, wide normals."""
    identity = np.eye(x.shape[1]) / 4
    precisions = {
        "full": np.stack([identity * (k + 1) for k in range(K)]),
        "tied": identity,
        "diag": np.full((K, x.shape[1]), 0.25),
        "spherical": np.full(K, 0.25),
    }
    return {
        "covariance_type": kind,
        "weights_init": [0.1, 0.2, 0.3, 0.4],
        "means_init": x[:K].astype(np.float64),  # else scikit-learn multiplies them in float32
        "precisions_init": precisions[kind],
    }


def quietly(model: Any, x: Any, **more: Any) -> Any:
    """Fit, where the run is too short to converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, **more)


def assert_same_fit(ours: Any, theirs: Any, rtol: float = RTOL) -> None:
    """The same parameters; ``rtol`` is of each array's largest entry, as zeros have no digits."""
    for name in FITTED:
        expected = getattr(theirs, name)
        atol = rtol * np.abs(expected).max()
        np.testing.assert_allclose(getattr(ours, name), expected, rtol=rtol, atol=atol)


@every_structure
@every_form
def test_the_whole_run_equals(kind: str, form: str, blobs: np.ndarray, tmp_path: Path) -> None:
    """Fifty iterations from one start: the same parameters and the same objective all along."""
    args = {**start(blobs, kind), "reg_covar": 0, "tol": 0, "max_iter": 50}
    with pytest.warns(ConvergenceWarning):
        ours = exact(K, **args).fit(FORMS[form](blobs, tmp_path))
    with pytest.warns(ConvergenceWarning):
        theirs = Reference(K, **args).fit(blobs)
    assert_same_fit(ours, theirs)
    assert len(ours.lower_bounds_) == len(theirs.lower_bounds_) == 50
    np.testing.assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=RTOL)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.converged_ == theirs.converged_


@every_structure
@every_form
def test_stops_where_scikit_learn_stops(
    kind: str, form: str, blobs: np.ndarray, tmp_path: Path
) -> None:
    """The default tol ends both runs at the same iteration, converged."""
    args = {**start(blobs, kind), "reg_covar": 0}
    ours = exact(K, **args).fit(FORMS[form](blobs, tmp_path))
    theirs = Reference(K, **args).fit(blobs)
    assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, theirs.converged_)
    assert ours.converged_
    assert 1 < ours.n_iter_ < 100
    assert_same_fit(ours, theirs)
    # scikit-learn reports the objective of the parameters before the last; ours is of the last.
    assert ours.lower_bounds_[-1] == pytest.approx(theirs.lower_bound_, rel=RTOL)
    assert ours.lower_bound_ == pytest.approx(theirs.score(blobs), rel=RTOL)


@every_structure
def test_reg_covar(kind: str, blobs: np.ndarray) -> None:
    """With reg_covar = e the objectives differ by the penalty e tr(Sigma^-1) / 2, so by about e.

    The penalty changes responsibilities by less than e |P|; |P| is below 10 here.
    """
    args = {**start(blobs, kind), "reg_covar": 1e-6, "tol": 0, "max_iter": 50}
    ours, theirs = quietly(exact(K, **args), blobs), quietly(Reference(K, **args), blobs)
    assert_same_fit(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=1e-5)


@every_structure
@every_form
def test_float32_rows_lose_nothing_more(
    kind: str, form: str, blobs: np.ndarray, tmp_path: Path
) -> None:
    """Every float32 is a float64, and all arithmetic is float64: so it is the fit of the rows
    converted first, to the same bound."""
    x = blobs.astype(np.float32)
    args = {**start(x, kind), "reg_covar": 0, "tol": 0, "max_iter": 20}
    ours = quietly(exact(K, **args), FORMS[form](x, tmp_path))
    theirs = quietly(Reference(K, **args), x.astype(np.float64))
    assert_same_fit(ours, theirs)
    assert ours.means_.dtype == ours.predict_proba(x).dtype == np.float64


@every_structure
@pytest.mark.parametrize("method", ["kmeans", "random"])
@every_form
def test_the_start_is_scikit_learns_own(
    kind: str, method: str, form: str, blobs: np.ndarray, tmp_path: Path
) -> None:
    """Where the sample holds every row, the same random_state makes the same first mixture."""
    args = {"covariance_type": kind, "init_params": method, "random_state": 5, "reg_covar": 1e-6}
    passes = exact(K, **args).fit_passes(FORMS[form](blobs, tmp_path))
    next(passes)
    evaluated = next(passes)
    passes.close()
    first = evaluated.mixture
    theirs = Reference(K, **args, max_iter=0).fit(blobs)
    for ours, name in zip(
        (first.weights, first.means, first.covariances.values), FITTED, strict=False
    ):
        np.testing.assert_allclose(ours, getattr(theirs, name), rtol=RTOL, atol=RTOL)


@every_structure
@pytest.mark.parametrize(("method", "n_init"), [("kmeans", 1), ("random", 3)])
def test_the_default_fit_equals(kind: str, method: str, n_init: int, blobs: np.ndarray) -> None:
    """Nothing given but the random_state, several starts drawn from one stream: the same result.

    The objectives differ by reg_covar's penalty, at most 1e-8 times |P| < 10.  (Several starts by
    k-means mostly end in one optimum, its components in any order; then the winner is chance.)
    """
    args = {"covariance_type": kind, "init_params": method, "random_state": 2, "n_init": n_init}
    args |= {"reg_covar": 1e-8, "max_iter": 500, "tol": 1e-4}
    ours, theirs = exact(K, **args).fit(blobs), Reference(K, **args).fit(blobs)
    assert ours.n_iter_ == theirs.n_iter_
    assert_same_fit(ours, theirs, rtol=1e-7)


@every_structure
def test_answers_equal(kind: str, blobs: np.ndarray) -> None:
    """predict, predict_proba, score_samples, score, aic and bic of the same fitted model."""
    args = {**start(blobs, kind), "reg_covar": 0, "tol": 0, "max_iter": 10}
    ours, theirs = quietly(exact(K, **args), blobs), quietly(Reference(K, **args), blobs)
    rows = np.concatenate([blobs[::3], blobs[:50] * 5])  # some far out, where all is left to one
    np.testing.assert_array_equal(ours.predict(rows), theirs.predict(rows))
    np.testing.assert_allclose(ours.predict_proba(rows), theirs.predict_proba(rows), atol=RTOL)
    np.testing.assert_allclose(ours.score_samples(rows), theirs.score_samples(rows), rtol=RTOL)
    for criterion in ("score", "aic", "bic"):
        expected = getattr(theirs, criterion)(rows)
        assert getattr(ours, criterion)(rows) == pytest.approx(expected, rel=RTOL)


@every_structure
def test_samples_have_scikit_learns_shape(kind: str, blobs: np.ndarray) -> None:
    """Rows grouped by component, with their components, as many as asked for."""
    args = {**start(blobs, kind), "random_state": 0, "max_iter": 300}
    ours, theirs = exact(K, **args).fit(blobs), Reference(K, **args).fit(blobs)
    (x, labels), (expected_x, expected_labels) = ours.sample(5000), theirs.sample(5000)
    assert (x.shape, labels.shape) == (expected_x.shape, expected_labels.shape)
    assert labels.dtype.kind == expected_labels.dtype.kind
    assert (np.diff(labels) >= 0).all()
    # Means of n_k draws: five standard errors of each, over K D = 12 numbers.
    for k in range(K):
        drawn = x[labels == k]
        error = np.sqrt(np.diagonal(np.cov(drawn.T)) / len(drawn))
        assert (np.abs(drawn.mean(axis=0) - ours.means_[k]) < 5 * error).all()


@every_structure
def test_predict_is_fit_predict(kind: str, blobs: np.ndarray) -> None:
    model = exact(K, **start(blobs, kind))
    labels = model.fit_predict(blobs)
    np.testing.assert_array_equal(labels, model.predict(blobs))
    np.testing.assert_array_equal(labels, Reference(K, **start(blobs, kind)).fit_predict(blobs))


@every_structure
@every_form
def test_integer_weights_are_repeated_rows(
    kind: str, form: str, blobs: np.ndarray, tmp_path: Path
) -> None:
    """A row of weight 3 counts as three rows; one of weight 0 is not there."""
    counts = np.random.default_rng(3).integers(0, 4, len(blobs))
    args = {**start(blobs, kind), "reg_covar": 0, "tol": 0, "max_iter": 20}
    weighted = exact(K, **args)
    quietly(weighted, FORMS[form](blobs, tmp_path), sample_weight=FORMS[form](counts, tmp_path))
    repeated = np.repeat(blobs, counts, axis=0)
    theirs = quietly(Reference(K, **args), repeated)
    assert_same_fit(weighted, theirs)
    np.testing.assert_allclose(weighted.lower_bounds_, theirs.lower_bounds_, rtol=RTOL)
    for criterion in ("score", "aic", "bic"):
        value = getattr(weighted, criterion)(blobs, sample_weight=counts)
        assert value == pytest.approx(getattr(theirs, criterion)(repeated), rel=RTOL)


@every_structure
@pytest.mark.parametrize("rows", FORMS)
@pytest.mark.parametrize("weights", FORMS)
def test_weight_zero_is_absence(
    kind: str, rows: str, weights: str, blobs: np.ndarray, tmp_path: Path
) -> None:
    """In whatever form the rows and the weights come; even rows that would change everything."""
    kept = np.arange(len(blobs)) % 3 > 0
    spoilt = np.where(kept[:, None], blobs, 1e6)
    args = {**start(blobs, kind), "tol": 0, "max_iter": 5}
    x, w = FORMS[rows](spoilt, tmp_path), FORMS[weights](kept * 0.5, tmp_path)
    ours = quietly(exact(K, **args), x, sample_weight=w)
    assert_same_fit(ours, quietly(exact(K, **args), blobs[kept]))


def test_starts_share_every_reading(blobs: np.ndarray) -> None:
    """Five starts take as many passes as the longest: the first, the iterations, the last state.

    The best is kept, and it is the best of five fits with one start each from the same stream.
    """
    args = {"init_params": "random_from_data", "max_iter": 500}
    stream = np.random.RandomState(4)
    float32_passes = [exact(3, random_state=stream, **args).fit(blobs) for _ in range(5)]
    assert len({single.n_iter_ for single in float32_passes}) > 1
    together = exact(3, n_init=5, random_state=4, **args).fit(blobs)
    assert together.fit_info_["passes"] == max(single.n_iter_ for single in float32_passes) + 2
    best = max(float32_passes, key=lambda single: single.lower_bound_)
    assert together.lower_bound_ == pytest.approx(best.lower_bound_, rel=RTOL)
    assert_same_fit(together, best)


def test_warm_start_continues(blobs: np.ndarray) -> None:
    """Five iterations and five more are ten; without warm_start the second fit begins anew."""
    args = {**start(blobs, "full"), "tol": 0}
    ten = quietly(exact(K, max_iter=10, **args), blobs)
    model = quietly(exact(K, max_iter=5, warm_start=True, **args), blobs)
    first = model.lower_bounds_
    quietly(model, blobs)
    assert_same_fit(model, ten)
    np.testing.assert_allclose([*first, *model.lower_bounds_], ten.lower_bounds_, rtol=RTOL)
    again = quietly(model.set_params(warm_start=False), blobs)
    np.testing.assert_array_equal(again.lower_bounds_, first)


def test_works_in_a_pipeline(blobs: np.ndarray) -> None:
    ours = make_pipeline(StandardScaler(), exact(K, random_state=0)).fit(blobs)
    theirs = make_pipeline(StandardScaler(), Reference(K, random_state=0)).fit(blobs)
    np.testing.assert_array_equal(ours.predict(blobs), theirs.predict(blobs))
    assert ours.score(blobs) == pytest.approx(theirs.score(blobs), rel=1e-5)  # reg_covar, above


def test_grid_search_chooses_as_with_scikit_learn(blobs: np.ndarray) -> None:
    grid = {"n_components": [1, 4], "covariance_type": ["spherical", "full"]}
    ours = GridSearchCV(exact(random_state=0), grid, cv=2).fit(blobs)
    theirs = GridSearchCV(Reference(random_state=0), grid, cv=2).fit(blobs)
    assert ours.best_params_ == theirs.best_params_
    np.testing.assert_allclose(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-5
    )


def test_clone_and_set_params(blobs: np.ndarray) -> None:
    """A clone has the parameters and not the fit; set_params is as good as the constructor."""
    model = exact(K, covariance_type="diag", random_state=0, max_iter=300).fit(blobs)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "means_")
    assert_same_fit(copy.fit(blobs), model, rtol=0)
    other = GaussianMixture().set_params(**model.get_params()).fit(blobs)
    assert_same_fit(other, model, rtol=0)
    with pytest.raises(ValueError, match="nonsense"):
        model.set_params(nonsense=1)


@every_structure
def test_pickled_models_answer_the_same(kind: str, blobs: np.ndarray) -> None:
    model = exact(K, **start(blobs, kind)).fit(blobs)
    copy = pickle.loads(pickle.dumps(model))
    assert_same_fit(copy, model, rtol=0)
    np.testing.assert_array_equal(copy.predict_proba(blobs), model.predict_proba(blobs))
    assert copy.lower_bounds_ == model.lower_bounds_


def _refuse(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("something was computed")


OUTPUTS = ("predict", "predict_proba", "score_samples")


@pytest.mark.parametrize("form", ["dask", "zarr"])
@pytest.mark.parametrize("what", OUTPUTS)
def test_lazy_in_lazy_out(what: str, form: str, blobs: np.ndarray, tmp_path: Path) -> None:
    """Dask in or a Zarr path in, Dask out: nothing is computed until asked, and then it is right.

    The row chunks of a Dask array are kept.
    """
    model = exact(K, **start(blobs, "full")).fit(blobs)
    x = FORMS[form](blobs, tmp_path)
    with dask.config.set(scheduler=_refuse):
        lazy = getattr(model, what)(x)
    assert isinstance(lazy, da.Array)
    expected = getattr(model, what)(blobs)
    assert (lazy.shape, lazy.dtype) == (expected.shape, expected.dtype)
    if form == "dask":
        assert lazy.chunks[0] == ROW_CHUNKS
    assert lazy.chunks[1:] == ((K,),) * (expected.ndim - 1)
    with dask.config.set(scheduler=_refuse), pytest.raises(AssertionError, match="computed"):
        lazy.compute()  # so the scheduler above would have told
    # The same block-wise arithmetic, in tiles that begin elsewhere: not always the same bits.
    np.testing.assert_allclose(lazy.compute(), expected, rtol=RTOL, atol=RTOL)


@pytest.mark.parametrize("what", OUTPUTS)
def test_numpy_in_numpy_out(what: str, blobs: np.ndarray) -> None:
    model = exact(K, **start(blobs, "full")).fit(blobs)
    assert type(getattr(model, what)(blobs)) is np.ndarray


@pytest.mark.filterwarnings("ignore")
@every_structure
@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-6])
def test_as_many_iterations_in_any_precision(blobs: np.ndarray, kind: str, tol: float) -> None:
    """On rows like those of Old Faithful, and on ``blobs``, with early passes in float32."""
    rng = np.random.default_rng(4)
    narrow, wide = (rng.normal(at, by, size=(n, 2)) for at, by, n in (
        ([2, 54], [0.3, 6], 97), ([4.3, 80], [0.4, 6], 175),
    ))  # fmt: skip
    float32_passes = {"auto": 0, "float64": 0}
    for rows, components in ((np.concatenate([narrow, wide]), 2), (blobs, 3)):
        args = {"covariance_type": kind, "tol": tol, "reg_covar": 0, "random_state": 0}
        args |= {"init_params": "kmeans"}
        theirs = Reference(components, max_iter=300, **args).fit(rows)
        for precision in float32_passes:
            ours = GaussianMixture(
                components, strategy="em", max_iter=300, precision=precision, **args
            ).fit(rows)
            assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, theirs.converged_)
            np.testing.assert_allclose(ours.lower_bounds_[-1], theirs.lower_bound_, rtol=1e-6)
            # Neither the first pass nor that of the last mixture.
            again = ours.fit_info_["passes"] - ours.n_iter_ - 2
            assert 0 <= again <= 2 * (precision == "auto")
            float32_passes[precision] += ours.fit_info_["float32_passes"]
    assert float32_passes["auto"] > 0 == float32_passes["float64"]


@pytest.mark.filterwarnings("ignore")
@every_structure
def test_warm_starts_of_one_iteration_converge_together(blobs: np.ndarray, kind: str) -> None:
    args = {"covariance_type": kind, "max_iter": 1, "reg_covar": 0, "warm_start": True}
    args |= {"init_params": "kmeans"}
    ours = GaussianMixture(3, strategy="em", random_state=0, **args)
    theirs = Reference(3, random_state=0, **args)
    for _ in range(200):
        assert ours.fit(blobs).converged_ == theirs.fit(blobs).converged_
        assert ours.n_iter_ == theirs.n_iter_ == 1
        if ours.converged_:
            break
    assert ours.converged_
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-7)


@every_structure
@pytest.mark.parametrize("strategy", ["auto", "em"])
def test_no_iterations_give_the_start(blobs: np.ndarray, kind: str, strategy: str) -> None:
    model = exact(K, strategy=strategy, covariance_type=kind, max_iter=0, random_state=0)
    model.set_params(reg_covar=0).fit(blobs)
    assert (model.n_iter_, model.lower_bounds_, model.converged_) == (0, [], False)
    assert model.lower_bound_ == pytest.approx(model.score(blobs), rel=1e-9)
    start = GaussianMixture.from_parameters(
        model.weights_, model.means_, model.covariances_, covariance_type=kind, reg_covar=0,
        warm_start=True, max_iter=0, strategy=strategy,
    ).fit(blobs)  # fmt: skip
    np.testing.assert_allclose(start.covariances_, model.covariances_, rtol=1e-9, atol=1e-12)
    assert start.lower_bound_ == pytest.approx(model.lower_bound_, rel=1e-9)
