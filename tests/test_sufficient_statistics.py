"""Statistics that are kept, moved, merged and learnt from, against dense references."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from dgmm import (
    DataError,
    DegenerateWarning,
    GaussianMixture,
    ModelFileError,
    SufficientStatistics,
    UsageError,
    load,
)
from dgmm.model.covariance import COVARIANCE_MODELS

K, D = 3, 2
every_structure = pytest.mark.parametrize("kind", COVARIANCE_MODELS)


def drawn(seed: int, rows: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0], [2.5, 1.0], [-1.0, 3.0]])
    return centres[rng.integers(0, K, rows)] + rng.standard_normal((rows, D)) + shift


def fitted(rows: np.ndarray, kind: str = "full", **params: object) -> GaussianMixture:
    return GaussianMixture(K, covariance_type=kind, random_state=0, **params).fit(rows)


def responsibilities(model: GaussianMixture, rows: np.ndarray) -> np.ndarray:
    """By the definition, with the penalty that belongs to reg_covar."""
    dense = model.mixture_.covariances.dense()
    added = model.sufficient_statistics_.prior.reg * model.sufficient_statistics_.frame.scale**2
    joint = np.stack(
        [
            np.log(model.weights_[k])
            + multivariate_normal(model.means_[k], dense[k]).logpdf(rows)
            - 0.5 * np.diag(np.linalg.inv(dense[k])) @ added
            for k in range(K)
        ],
        axis=1,
    )
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))


@every_structure
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_at_its_own_mixture_the_bound_is_the_objective(
    kind: str, weighted: bool, shift: float
) -> None:
    rows = drawn(0, 3000, shift)
    weights = np.random.default_rng(1).gamma(2.0, size=len(rows)) if weighted else None
    model = GaussianMixture(K, covariance_type=kind, random_state=0).fit(
        rows, sample_weight=weights
    )
    bound = model.sufficient_statistics_.bound(model.mixture_)
    assert bound == pytest.approx(model.lower_bound_, abs=1e-9)
    again = model.summarize(rows, weights)
    assert again.bound(model.mixture_) == pytest.approx(model.lower_bound_, abs=1e-9)
    assert again.rows == len(rows)


@every_structure
def test_sites_together_take_the_em_step_of_all_rows(kind: str) -> None:
    rows = drawn(0, 4000)
    model = fitted(rows[:500], kind, tol=0.1, strategy="em", reg_covar=1e-6)
    parts = [model.summarize(part) for part in (rows[:1000], rows[1000:1100], rows[1100:])]
    start = {
        "weights_init": model.weights_,
        "means_init": model.means_,
        "precisions_init": model.precisions_,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = fitted(
            rows, kind, strategy="em", max_iter=1, precision="float64", reg_covar=1e-6, **start
        )
    model.update(parts[0] + parts[1] + parts[2])
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(model, name), getattr(one, name), rtol=1e-9, atol=1e-9)
    assert model.lower_bounds_[0] == pytest.approx(one.lower_bounds_[0], abs=1e-11)


@every_structure
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_partial_fit_is_incremental_em(kind: str, shift: float) -> None:
    """Old rows keep their responsibilities: the dense M-step with these and the new ones."""
    chunks = [drawn(seed, 600, shift) for seed in range(4)]
    model = fitted(chunks[0], kind)
    shares = [responsibilities(model, chunks[0])]
    for seen, chunk in enumerate(chunks[1:], start=2):
        shares.append(responsibilities(model, chunk))
        model.partial_fit(chunk)
        rows, r = np.concatenate(chunks[:seen]), np.concatenate(shares)
        counts = r.sum(axis=0)
        means = (r.T @ rows) / counts[:, None]
        away = rows[:, None, :] - means
        scatter = np.einsum("nk,nki,nkj->kij", r, away, away)
        added = model.sufficient_statistics_.prior.reg * model.sufficient_statistics_.frame.scale**2
        dense = model.mixture_.covariances.dense()
        expected = {
            "full": scatter / counts[:, None, None],
            "tied": np.broadcast_to(scatter.sum(axis=0) / len(rows), (K, D, D)),
            "diag": scatter / counts[:, None, None] * np.eye(D),
            "spherical": np.trace(scatter, axis1=1, axis2=2)[:, None, None]
            / (D * counts[:, None, None])
            * np.eye(D),
        }[kind] + np.diag(added)
        np.testing.assert_allclose(model.weights_, counts / len(rows), rtol=1e-7)
        np.testing.assert_allclose(model.means_, means, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(dense, expected, rtol=1e-6, atol=1e-7)
        assert model.sufficient_statistics_.rows == len(rows)


@every_structure
def test_the_bound_is_one_and_each_m_step_raises_it(kind: str) -> None:
    rows = drawn(5, 5000)
    model = fitted(rows[:500], kind)
    for start in range(500, 5000, 500):
        model.partial_fit(rows[start : start + 500])
        seen = rows[: start + 500]
        objective = model.summarize(seen).bound(model.mixture_)
        assert model.lower_bounds_[0] <= model.lower_bound_ + 1e-12
        assert model.lower_bound_ <= objective + 1e-12
    whole = fitted(rows, kind)
    assert whole.lower_bound_ - objective < 0.01  # these rows are all of a kind


def test_an_unfitted_model_begins_with_a_fit() -> None:
    rows = drawn(0, 500)
    model = GaussianMixture(K, random_state=0).partial_fit(rows)
    np.testing.assert_array_equal(model.means_, fitted(rows).means_)


def test_what_cannot_be_learnt_from_changes_nothing() -> None:
    model = fitted(drawn(0, 500))
    before, statistics = model.means_.copy(), model.sufficient_statistics_
    bad = drawn(1, 100)
    bad[17, 1] = np.nan
    with pytest.raises(DataError, match="nan at row 17, column 1"):
        model.partial_fit(bad)
    with pytest.raises(DataError, match="not negative"):
        model.partial_fit(drawn(1, 10), sample_weight=np.linspace(-1, 1, 10))
    with pytest.raises(DataError, match="all weights are zero"):
        model.partial_fit(drawn(1, 10), sample_weight=np.zeros(10))
    with pytest.raises(DataError, match="3 features"):
        model.partial_fit(np.ones((5, 3)))
    assert model.sufficient_statistics_ is statistics
    np.testing.assert_array_equal(model.means_, before)


def test_only_what_descends_from_one_model_adds_up() -> None:
    one, other = fitted(drawn(0, 500)), fitted(drawn(1, 500))
    with pytest.raises(UsageError, match="fitted apart"):
        one.sufficient_statistics_ + other.sufficient_statistics_
    with pytest.raises(UsageError, match="do not descend from this model"):
        one.update(other.sufficient_statistics_)
    with pytest.raises(UsageError, match="full here, diag there"):
        one.sufficient_statistics_ + fitted(drawn(0, 500), "diag").sufficient_statistics_
    two = GaussianMixture(2, random_state=0).fit(drawn(0, 500))
    with pytest.raises(UsageError, match="components and features"):
        one.sufficient_statistics_ + two.sufficient_statistics_


def test_two_fits_to_the_same_rows_are_two_fits() -> None:
    """Their components come in different orders."""
    rows = drawn(0, 500)
    one, other = (
        GaussianMixture(K, init_params="random_from_data", random_state=seed).fit(rows)
        for seed in (0, 1)
    )
    with pytest.raises(UsageError, match="fitted apart"):
        one.sufficient_statistics_ + other.sufficient_statistics_


@every_structure
@pytest.mark.parametrize("unit", [1e-100, 1e-12, 1e12, 1e100])
def test_the_unit_of_the_weights_does_not_matter(kind: str, unit: float) -> None:
    """But for rounding; in single precision, means that differ by 1e-16 may round to 1e-8."""
    results = []
    for scale in (1.0, unit):
        model = GaussianMixture(
            K, covariance_type=kind, strategy="em", precision="float64", random_state=0
        )
        model.fit(drawn(0, 400), sample_weight=np.full(400, scale))
        for seed in (1, 2):
            model.partial_fit(drawn(seed, 300) + 0.1, sample_weight=np.full(300, scale))
        results.append(model)
    one, other = results
    assert one.lower_bound_ == pytest.approx(other.lower_bound_, abs=1e-12)
    assert one.lower_bounds_ == pytest.approx(other.lower_bounds_, abs=1e-12)
    np.testing.assert_allclose(one.covariances_, other.covariances_, atol=1e-12)


def test_what_cannot_be_a_model_is_not_made(tmp_path: Path) -> None:
    model = fitted(drawn(0, 500))
    means = model.means_.copy()
    with pytest.raises(DataError, match="the weights sum to"):
        model.partial_fit(drawn(1, 50), sample_weight=np.full(50, 1e300))
    with pytest.raises(UsageError, match="needs SufficientStatistics, not str"):
        model.update("one.sums")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="under the same"):
        model.set_params(reg_covar=0.5).partial_fit(drawn(1, 50))
    np.testing.assert_array_equal(model.means_, means)
    total = sum([model.sufficient_statistics_, model.sufficient_statistics_])
    assert isinstance(total, SufficientStatistics)
    assert total.rows == 1000
    with pytest.raises(TypeError):
        model.sufficient_statistics_ + 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"noise_component": True}),
        ({"noise_component": True}, {"noise_component": False}),
        ({"noise_component": True}, {"noise_volume": 5.0}),
        ({}, {"tails": "student"}),
        ({}, {"fixed": "means"}),
        ({"fixed": {"means": [0]}, "means_init": [[0, 0], [3, 0], [0, 3]]}, {"fixed": "means"}),
    ],
)
def test_rows_are_not_added_under_another_kind_of_mixture(
    before: dict[str, object], after: dict[str, object]
) -> None:
    rows = drawn(0, 500)
    model = GaussianMixture(K, random_state=0, max_iter=1000, **before).fit(rows)
    means = model.means_.copy()
    seen = model.summarize(rows)
    model.set_params(**after)
    learns = "tails" not in after  # with tails there is no such method
    refusal = (UsageError, "under the same") if learns else (AttributeError, "no attribute")
    with pytest.raises(refusal[0], match=refusal[1]):
        model.partial_fit(rows)
    with pytest.raises(UsageError, match="under the same"):
        model.update(seen)
    np.testing.assert_array_equal(model.means_, means)
    back = {
        name: before.get(name, {"noise_component": False, "tails": "normal"}.get(name))
        for name in after
    }
    assert model.set_params(**back).partial_fit(rows).sufficient_statistics_.rows == 1000


def test_the_bound_of_a_mixture_that_leaves_rows_out_is_minus_infinity() -> None:
    rows = drawn(0, 500)
    far = np.vstack([rows, 1e4 + np.random.default_rng(0).normal(size=(20, 2))])
    start = {"means_init": [[0, 0], [2, 1], [1e4, 1e4]], "reg_covar": 1e-3}
    model = GaussianMixture(K, random_state=0, strategy="em", **start).fit(far)
    whole = model.sufficient_statistics_
    with pytest.warns(DegenerateWarning):
        model.update(model.summarize(rows))
    assert whole.bound(model.mixture_) == -np.inf


def test_a_component_that_nothing_belongs_to_stays() -> None:
    rows = drawn(0, 500)
    far = np.vstack([rows, 1e4 + np.random.default_rng(0).normal(size=(20, 2))])
    start = {"means_init": [[0, 0], [2, 1], [1e4, 1e4]], "reg_covar": 1e-3}
    model = GaussianMixture(K, random_state=0, strategy="em", **start).fit(far)
    last = model.means_[2]
    with pytest.warns(DegenerateWarning, match="2 has become empty"):
        model.update(model.summarize(rows))
    assert model.weights_[2] == 0
    np.testing.assert_allclose(model.means_[2], last)
    assert np.isfinite(model.score_samples(rows)).all()
    with pytest.warns(DegenerateWarning):
        model.partial_fit(rows)
    assert np.isfinite(model.lower_bound_)


@pytest.mark.parametrize("place", ["local", "memory"])
def test_statistics_come_back_bit_for_bit(tmp_path: Path, place: str) -> None:
    url = str(tmp_path / "s.sums") if place == "local" else f"memory://{tmp_path.name}/s.sums"
    model = fitted(drawn(0, 500), "tied")
    found = model.summarize(drawn(1, 300))
    found.save(url)
    back = SufficientStatistics.load(url)
    assert back.differs(found) is None
    np.testing.assert_array_equal(back.sums, found.sums)
    np.testing.assert_array_equal(back.center, found.center)
    assert (back.entropy, back.weight, back.rows) == (found.entropy, found.weight, found.rows)
    with pytest.raises(DataError, match="exists"):
        found.save(url)


@every_structure
def test_a_saved_model_goes_on_as_if_it_had_never_been(tmp_path: Path, kind: str) -> None:
    model = fitted(drawn(0, 500), kind)
    model.save(tmp_path / "model.dgmm")
    back = load(tmp_path / "model.dgmm").partial_fit(drawn(1, 500))
    model.partial_fit(drawn(1, 500))
    np.testing.assert_array_equal(back.means_, model.means_)
    np.testing.assert_array_equal(back.covariances_, model.covariances_)
    assert back.lower_bound_ == model.lower_bound_
    model.save(tmp_path / "model.dgmm", overwrite=True)
    assert load(tmp_path / "model.dgmm").fit_info_ == model.fit_info_


def _changed(**changes: Callable[[np.ndarray], np.ndarray] | object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        from dgmm.io import storage

        arrays, header = storage.read(str(path), "dgmm-sufficient-statistics")
        for name, value in changes.items():
            if name in arrays:
                arrays[name] = value(arrays[name])  # type: ignore[operator]
            elif name == "sufficient_statistics" and not isinstance(value, dict):
                header["sufficient_statistics"] = value
            else:
                header["sufficient_statistics"][name] = value
        storage.write(str(path), "dgmm-sufficient-statistics", arrays, header, overwrite=True)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_text("sums"), "damaged"),
        (lambda path: fitted(drawn(0, 99)).save(path, overwrite=False), "does not say"),
        (_changed(sufficient_statistics=None), "no record of the statistics"),
        (_changed(weight=0.0), "of no rows"),
        (_changed(weight=1e300), "of no rows"),
        (_changed(entropy=float("nan")), "of no rows"),
        (_changed(entropy=True), "have entropy True"),
        (_changed(rows="many"), "have rows 'many'"),
        (_changed(rows=0), "of no rows"),
        (_changed(sums=lambda sums: sums[:, :-1]), "not float64 of shape"),
        (_changed(sums=lambda sums: sums * np.inf), "NaN or infinity"),
        (_changed(sums=lambda sums: -sums), "of no rows"),
        (_changed(center=lambda center: center[0]), "center are of shape"),
        (_changed(scale=lambda scale: 0 * scale), "of no rows"),
        (_changed(covariance_type="round"), "unknown covariances"),
    ],
)
def test_what_are_no_statistics_is_refused(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "s.sums"
    if "does not say" not in message:
        fitted(drawn(0, 99)).sufficient_statistics_.save(path)
    change(path)
    with pytest.raises(ModelFileError, match=message):
        SufficientStatistics.load(path)


def test_a_model_file_without_statistics_can_be_used_but_not_go_on(tmp_path: Path) -> None:
    model = fitted(drawn(0, 500))
    del model.sufficient_statistics_
    model.save(tmp_path / "model.dgmm")
    header = json.loads(str(np.load(tmp_path / "model.dgmm")["header"]))
    assert "sufficient_statistics" not in header
    back = load(tmp_path / "model.dgmm")
    back.predict(drawn(0, 5))
    with pytest.raises(UsageError, match="saved without the statistics"):
        back.partial_fit(drawn(0, 5))


def test_the_same_bits_on_a_cluster(clusters: Mapping[int, Client], tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, drawn(1, 300_000).astype("f4"))
    model = fitted(drawn(0, 500))
    alone = model.summarize(path)
    with clusters[2].as_current():
        together = model.summarize(path)
    np.testing.assert_array_equal(alone.sums, together.sums)
    assert alone.entropy == together.entropy


@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(sorted(COVARIANCE_MODELS)),
    divisions=st.lists(st.integers(1, 299), min_size=2, max_size=2, unique=True),
    steps=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_they_are_a_commutative_monoid_up_to_rounding(
    kind: str, divisions: list[int], steps: list[bool]
) -> None:
    """Also where the mixtures they were made under, and so what they are about, differ."""
    rows = drawn(3, 300)
    model = fitted(drawn(0, 500), kind)
    parts = []
    for part, step in zip(np.split(rows, sorted(divisions)), steps, strict=True):
        parts.append(model.summarize(part))
        if step:
            model.partial_fit(part)
    a, b, c = parts
    for mine, theirs in (((a + b) + c, a + (b + c)), (a + b, b + a)):
        assert mine.rows == theirs.rows
        assert mine.weight == pytest.approx(theirs.weight)
        bounds = mine.bound(model.mixture_), theirs.bound(model.mixture_)
        assert bounds[0] == pytest.approx(bounds[1], abs=1e-10)
        left, right = (each.improve(model.mixture_).mixture for each in (mine, theirs))
        np.testing.assert_allclose(left.means, right.means, atol=1e-10)
        np.testing.assert_allclose(left.covariances.values, right.covariances.values, atol=1e-10)
