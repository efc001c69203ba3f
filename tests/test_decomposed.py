"""Mixtures whose covariances have volumes, shapes or axes in common, against plain references."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from dense import Parameters, sums_of
from distributed import Client
from sklearn.datasets import load_iris, load_wine

from dgmm import BayesianGaussianMixture, GaussianMixture, load, select
from dgmm.cli.commands import main
from dgmm.em.agglomeration import agglomerated
from dgmm.errors import DgmmError, UsageError
from dgmm.model.covariance import COVARIANCE_TYPES
from dgmm.model.decomposed import DECOMPOSED

Array = np.ndarray
NAMES = [each.name for each in DECOMPOSED]
every_one = pytest.mark.parametrize("kind", NAMES)
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

MCLUST = {
    "EII": (15, -878.765),
    "VII": (17, -853.814),
    "EEI": (18, -813.050),
    "VEI": (20, -779.157),
    "EVI": (24, -797.834),
    "VVI": (26, -744.638),
    "EEE": (24, -632.965),
    "VEE": (26, -605.398),
    "EVE": (30, -666.549),
    "VVE": (32, -636.426),
    "EEV": (36, -644.781),
    "VEV": (38, -562.552),
    "EVV": (42, -656.036),
    "VVV": (44, -580.840),
}
"""Of mclust 6.0.0 with three components for Fisher's irises: free parameters, 2 L - p log N."""


def volume(matrix: Array) -> float:
    return float(np.linalg.det(matrix) ** (1 / len(matrix)))


def isotropic(scatters: Array, counts: Array) -> Array:
    d = scatters.shape[1]
    mean = np.einsum("k,kii->", counts, scatters) / counts.sum() / d
    return np.array([mean * np.eye(d)] * len(counts))


def one_volume(scatters: Array, counts: Array) -> Array:
    """Celeux and Govaert (1995), model [lambda C_k]: EVV, and EVI of diagonal scatters."""
    own = np.array([volume(each) for each in scatters])
    return scatters / own[:, None, None] * (counts @ own) / counts.sum()


def one_form(scatters: Array, counts: Array) -> Array:
    """The model [lambda_k C]: VEE, and VEI of diagonal scatters."""
    sizes = np.ones(len(counts))
    for _ in range(200):
        form = np.einsum("k,kij->ij", counts / sizes, scatters)
        form /= volume(form)
        sizes = np.trace(np.linalg.inv(form) @ scatters, axis1=1, axis2=2) / len(form)
    return sizes[:, None, None] * form


def common_axes(scatters: Array, counts: Array, own_volumes: bool) -> Array:
    """Browne and McNicholas (2014), by majorisation: EVE and VVE."""
    axes = np.linalg.eigh(np.einsum("k,kij->ij", counts, scatters))[1]
    for _ in range(20_000):
        spread = np.einsum("ji,kjl,li->ki", axes, scatters, axes)
        sizes = np.exp(np.log(spread).mean(axis=1))
        level = sizes if own_volumes else np.full(len(sizes), counts @ sizes / counts.sum())
        values = spread / sizes[:, None] * level[:, None]
        slope = np.zeros_like(axes)
        for n, scatter, each in zip(counts, scatters, values, strict=True):
            top = np.linalg.eigvalsh(scatter)[-1]
            slope += n * (scatter - top * np.eye(len(axes))) @ (axes / each)
        left, _, right = np.linalg.svd(slope)
        before, axes = axes, -left @ right
        if np.abs(axes - before).max() < 1e-11:
            break
    return (axes * values[:, None, :]) @ axes.T


def along(scatters: Array, counts: Array, rule: Any) -> Array:
    """The same for each scatter's own axes, in the order of their spread."""
    values, axes = np.linalg.eigh(scatters)
    made = rule(values[:, :, None] * np.eye(values.shape[1]), counts)
    return np.asarray(axes @ made @ axes.swapaxes(1, 2))


def mean(scatters: Array, counts: Array) -> Array:
    one = np.einsum("k,kij->ij", counts, scatters) / counts.sum()
    return np.array([one] * len(counts))


def diagonal(scatters: Array) -> Array:
    return np.asarray(scatters * np.eye(scatters.shape[1]))


REFERENCE = {
    "EII": isotropic,
    "EEI": lambda s, n: mean(diagonal(s), n),
    "VEI": lambda s, n: one_form(diagonal(s), n),
    "EVI": lambda s, n: one_volume(diagonal(s), n),
    "VEE": one_form,
    "EVE": lambda s, n: common_axes(s, n, False),
    "VVE": lambda s, n: common_axes(s, n, True),
    "EEV": lambda s, n: along(s, n, mean),
    "VEV": lambda s, n: along(s, n, one_form),
    "EVV": one_volume,
}
"""The M-steps: covariances from the mean squares (K, D, D) and the counts (K,) of components."""


def blobs(n: int = 240, d: int = 3, seed: int = 0) -> Array:
    """Three groups, turned differently, that overlap."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(3, d, d)))[0]
    shapes = rng.uniform(0.3, 1.8, size=(3, d))
    labels = rng.integers(0, 3, n)
    seen = rng.normal(size=(n, d)) * shapes[labels]
    return np.asarray(np.einsum("nij,nj->ni", turned[labels], seen) + 2.0 * labels[:, None])


def start_of(kind: str, rows: Array) -> dict[str, Array]:
    """The unit covariances are of every kind."""
    k, d = 3, rows.shape[1]
    model = COVARIANCE_TYPES[kind]
    own = model.of_variances(np.ones(d), k)
    return {
        "weights_init": np.array([0.3, 0.3, 0.4]),
        "means_init": rows[[5, 50, 80]],
        "precisions_init": np.array(own.precisions()),
    }


def dense(kind: str, values: Array, k: int, d: int) -> Array:
    return np.array(COVARIANCE_TYPES[kind].plain.of_covariances(values, (k, d)).dense())


@quiet
@every_one
def test_em_is_that_of_plain_m_steps(kind: str) -> None:
    """Four iterations, with weights and holes: the mixture after each, and the objective."""
    rows, reg = blobs(90), 1e-2
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.5, 2.0, len(rows))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    complete = np.where(np.isnan(rows), 0.0, rows)
    begin = start_of(kind, complete)
    at = Parameters(begin["weights_init"], begin["means_init"], np.array([np.eye(3)] * 3))
    allowed = np.ones((len(rows), 3), bool)
    trace = []
    for _ in range(5):
        penalty = 0.5 * reg * np.trace(np.linalg.inv(at.covariances), axis1=1, axis2=2)
        sums = sums_of(rows, weights, at, penalty, allowed)
        trace.append(sums.objective / sums.weight)
        before = at
        means = sums.first / sums.counts[:, None]
        scatters = sums.second / sums.counts[:, None, None] - means[:, :, None] * means[:, None]
        own = REFERENCE[kind](scatters + reg * np.eye(3), sums.counts)
        at = Parameters(sums.counts / sums.counts.sum(), means, own)
    model = GaussianMixture(
        *(3,),
        covariance_type=kind,
        strategy="em",
        tol=0,
        max_iter=4,
        reg_covar=reg,
        missing="marginalize",
        precision="float64",
        **begin,
    ).fit(rows, sample_weight=weights)
    objective = [*model.lower_bounds_, model.lower_bound_]
    np.testing.assert_allclose(objective, trace, rtol=1e-9)
    np.testing.assert_allclose(model.means_, before.means, atol=1e-6)
    np.testing.assert_allclose(
        dense(kind, model.covariances_, 3, 3), before.covariances, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", MCLUST)
def test_mclust_is_reached(kind: str) -> None:
    """By more than 0.05, which is what ``reg_covar`` costs; parameters are counted as there."""
    rows = load_iris().data
    parameters, published = MCLUST[kind]
    model = GaussianMixture(3, covariance_type=kind, random_state=0).fit(rows)
    assert model.mixture_.free_parameters == parameters
    assert -model.bic(rows) > published - 0.05


@quiet
@pytest.mark.parametrize(
    "asked", [{"noise_component": True}, {"tails": "student"}], ids=["noise", "tails"]
)
@pytest.mark.parametrize("kind", ["VEI", "VVE", "EEV"])
def test_it_never_falls_beside_noise_or_with_tails(kind: str, asked: dict[str, Any]) -> None:
    rows = np.concatenate([blobs(), np.random.default_rng(0).uniform(-20, 20, (20, 3))])
    model = GaussianMixture(
        3,
        covariance_type=kind,
        strategy="em",
        max_iter=30,
        random_state=0,
        precision="float64",
        **asked,
    ).fit(rows)
    assert np.diff([*model.lower_bounds_, model.lower_bound_]).min() >= -1e-11


@pytest.mark.parametrize(
    ("kind", "components", "published"),
    [("VVV", 3, -7203.940), ("EEV", 3, -7320.631), ("VEV", 3, -7250.142), ("EVV", 3, -7284.777)],
)
def test_mclust_is_reached_with_fewer_rows_than_parameters(
    kind: Any, components: int, published: float
) -> None:
    """178 wines of 13 features, one far longer than others; Ward's tree is not enough."""
    rows = load_wine().data
    model = GaussianMixture(components, covariance_type=kind, random_state=0).fit(rows)
    assert -model.bic(rows) > published - 0.05


def test_trees_merge_what_costs_least() -> None:
    """As a plain search over all pairs, each time anew."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 3)) * [1, 4, 0.3] + rng.integers(0, 3, size=(30, 1)) * 3
    spread = rows.var(axis=0).mean()

    def level(own: Array) -> float:
        away = own - own.mean(axis=0)
        scatter = away.T @ away
        even = (np.trace(scatter) + spread) / len(own) / 3
        return float(len(own) * np.log(np.linalg.det(scatter / len(own) + even * np.eye(3))))

    groups = [rows[[i]] for i in range(30)]
    while len(groups) > 4:
        pairs = [(i, j) for i in range(len(groups)) for j in range(i)]
        lost = [
            level(np.concatenate([groups[i], groups[j]])) - level(groups[i]) - level(groups[j])
            for i, j in pairs
        ]
        i, j = pairs[int(np.argmin(lost))]
        groups[j] = np.concatenate([groups[j], groups.pop(i)])
    labels = agglomerated(rows, np.arange(30), 4)
    found = {tuple(sorted(rows[labels == k, 0])) for k in range(4)}
    assert found == {tuple(sorted(each[:, 0])) for each in groups}


def test_rows_that_are_all_the_same_are_merged_without_a_warning() -> None:
    labels = agglomerated(np.full((30, 4), 0.1), np.arange(30), 4)
    np.testing.assert_array_equal(np.unique(labels), np.arange(4))


def test_common_axes_are_found_among_many_features() -> None:
    """As many sweeps of planes as it takes: no turn of two axes makes it better."""
    d, k = 9, 4
    rng = np.random.default_rng(3)
    axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
    scatters = np.array([(axes * rng.uniform(0.1, 5, d)) @ axes.T for _ in range(k)])
    counts = rng.uniform(5, 50, k)
    model = COVARIANCE_TYPES["VVE"]
    exact = model.estimate_of(scatters, (k, d)).floored()[0]
    np.testing.assert_allclose(exact.values, scatters, rtol=1e-6, atol=1e-8)
    noisy = scatters + 0.3 * np.array([a @ a.T for a in rng.normal(size=(k, d, d))]) / d
    for kind in ("EVE", "VVE"):
        fitted = COVARIANCE_TYPES[kind].fitted(noisy, counts, None)  # type: ignore[attr-defined]
        np.testing.assert_allclose(fitted, REFERENCE[kind](noisy, counts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "own"), [("VVV", "full"), ("EEE", "tied"), ("VVI", "diag"), ("VII", "spherical")]
)
def test_names_of_mclust_are_aliases(name: str, own: str) -> None:
    rows = blobs()
    one, other = (
        GaussianMixture(2, covariance_type=kind, random_state=0).fit(rows) for kind in (name, own)
    )
    np.testing.assert_array_equal(one.covariances_, other.covariances_)
    assert one.mixture_.covariance_model.name == own
    one.partial_fit(rows[:50])  # what was fitted by another name is the same


@quiet
@every_one
def test_files_and_other_libraries(kind: str, tmp_path: Path) -> None:
    rows = blobs(120)
    model = GaussianMixture(2, covariance_type=kind, strategy="em", random_state=0).fit(rows)
    model.save(tmp_path / "a.dgmm")
    back = load(tmp_path / "a.dgmm")
    assert back.covariance_type == kind
    np.testing.assert_array_equal(back.covariances_, model.covariances_)
    np.testing.assert_allclose(model.to_sklearn().score_samples(rows), model.score_samples(rows))
    before = back.lower_bound_
    assert back.partial_fit(rows).lower_bound_ > before - 1e-9
    again = GaussianMixture(2, covariance_type=kind, warm_start=True, strategy="em", max_iter=1)
    again.mixture_, again.lower_bounds_ = model.mixture_, [model.lower_bound_]
    assert again.fit(rows).lower_bound_ > model.lower_bound_ - 1e-10
    same = GaussianMixture.from_parameters(
        model.weights_, model.means_, model.covariances_, covariance_type=kind
    )
    np.testing.assert_array_equal(same.covariances_, model.covariances_)


def test_same_bits_on_a_cluster_and_after_a_kill(
    clusters: Mapping[int, Client], tmp_path: Path
) -> None:
    rows = da.from_array(blobs(4000), chunks=(500, 3))
    store = str(tmp_path / "rows.zarr")
    rows.to_zarr(store)
    for kind in ("VVE", "VEI"):
        asked: dict[str, Any] = {"covariance_type": kind, "random_state": 0}
        here = GaussianMixture(3, **asked).fit(store)
        with clusters[2].as_current():
            there = GaussianMixture(3, **asked).fit(store)
        place = tmp_path / kind
        passes = GaussianMixture(3, checkpoint=place, **asked).fit_passes(store)
        for number, _ in enumerate(passes):
            if number == 1:
                break
        again = GaussianMixture(3, checkpoint=place, **asked).fit(store)
        for other in (there, again):
            np.testing.assert_array_equal(here.covariances_, other.covariances_)
            assert other.lower_bound_ == here.lower_bound_


@pytest.mark.parametrize("kind", [each.name for each in DECOMPOSED if each.any_scale])
def test_units_do_not_matter(kind: str) -> None:
    rows, scale = blobs(), np.array([1e3, 1.0, 1e-4])
    one, other = (
        GaussianMixture(2, covariance_type=kind, random_state=0).fit(each)
        for each in (rows, rows * scale)
    )
    np.testing.assert_allclose(other.means_, one.means_ * scale, rtol=1e-6)
    np.testing.assert_allclose(
        other.mixture_.variances, one.mixture_.variances * scale**2, rtol=1e-6
    )


@pytest.mark.parametrize("kind", NAMES)
def test_parameters_that_are_given_are_kept_in_any_units(kind: str) -> None:
    """Those of a fit in other units: of each feature, where axes don't matter, or of all."""
    scale = np.array([1e9, 1.0, 1e-12]) if COVARIANCE_TYPES[kind].any_scale else np.full(3, 1e-12)
    fitted = GaussianMixture(2, covariance_type=kind, random_state=0).fit(blobs(60) * scale)
    back = GaussianMixture.from_json(fitted.to_json())
    np.testing.assert_allclose(back.covariances_, fitted.covariances_, rtol=1e-14)
    turned = np.asarray(fitted.precisions_) * (
        1 + 1e-10 * np.arange(2).reshape(2, *[1] * (np.ndim(fitted.precisions_) - 1))
    )
    near = GaussianMixture.from_parameters(
        fitted.weights_, fitted.means_, precisions=turned, covariance_type=kind
    )
    np.testing.assert_allclose(
        near.component_covariances_ / scale[:, None] / scale,
        fitted.component_covariances_ / scale[:, None] / scale,
        rtol=1e-8,
        atol=1e-8,
    )


NOT_OF_IT = np.array([[[1.0, 0.0], [0.0, 2.0]], [[2.0, 0.3], [0.3, 1.0]]])


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (
            lambda rows: GaussianMixture(2, covariance_type="VEV", prior="conjugate").fit(rows),
            "there is no prior='conjugate' of 'VEV' covariances",
        ),
        (
            lambda rows: BayesianGaussianMixture(2, covariance_type="EVE").fit(rows),
            "there is no prior='variational' of 'EVE' covariances",
        ),
        (
            lambda rows: GaussianMixture.from_parameters(
                [0.5, 0.5], np.zeros((2, 2)), NOT_OF_IT, covariance_type="EVE"
            ),
            "not EVE covariances, and the nearest that are cost 0.00",
        ),
        (
            lambda rows: GaussianMixture(
                2,
                covariance_type="EEI",
                precisions_init=np.ones((2, 2)),
                fixed={"covariances": [0]},
            ).fit(rows),
            "'EEI' covariances have parts in common",
        ),
        (
            lambda rows: GaussianMixture(
                2, covariance_type="EEV", precisions_init=-np.ones((2, 2, 2))
            ).fit(rows),
            "symmetric, positive-definite",
        ),
    ],
    ids=["prior", "variational", "parameters", "fixed", "indefinite"],
)
def test_what_makes_no_sense_is_refused(ask: Any, told: str) -> None:
    with pytest.raises(DgmmError, match=told):
        ask(blobs()[:, :2])


@pytest.mark.filterwarnings("ignore")
@every_one
def test_a_singular_mixture_is_kept_too(kind: str, tmp_path: Path) -> None:
    """A column of one value, and components on a point: what the floor of variances makes of it."""
    rows = blobs(60)
    flat = np.where([True, False, False], 0.1, rows)
    for each in (flat, rows[np.random.default_rng(0).integers(0, 8, 60)]):
        model = GaussianMixture(3, covariance_type=kind, reg_covar=0, random_state=0).fit(each)
        model.save(tmp_path / "a.dgmm", overwrite=True)
        back = load(tmp_path / "a.dgmm")
        np.testing.assert_array_equal(back.covariances_, model.covariances_)
        assert np.isfinite(back.set_params(warm_start=True).fit(each).lower_bound_)
        again = GaussianMixture.from_json(model.to_json())
        np.testing.assert_array_equal(again.covariances_, model.covariances_)


@pytest.mark.parametrize("kind", ["EEV", "VEV", "EVE", "VVE"])
def test_thin_covariances_that_are_given_are_not_changed(kind: Any) -> None:
    """Whether they are of the family can't be told, as they may have been raised."""
    given = np.array([np.diag([1.0, 1e-12]), np.diag([9.0, 4e-12])])
    model = GaussianMixture.from_parameters(
        [0.5, 0.5], np.zeros((2, 2)), given, covariance_type=kind
    )
    np.testing.assert_array_equal(model.covariances_, given)


def test_all_are_held_together() -> None:
    rows = blobs()
    begin = start_of("VEE", rows)
    model = GaussianMixture(3, covariance_type="VEE", fixed="covariances", **begin).fit(rows)
    np.testing.assert_allclose(model.covariances_, np.array([np.eye(3)] * 3))


def test_the_command_line(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", blobs())
    rows, one, other = (str(tmp_path / name) for name in ("rows.npy", "a.dgmm", "b.dgmm"))
    fit = ["fit", rows, "-k", "3", "--quiet", "--json"]
    for more in (
        ["--covariance-type", "VEV", "-o", one],
        ["--covariance-type", "VEV", "-o", other, "--start", one],
        ["--covariance-type", "EEE", "-o", one, "--overwrite"],
        ["--covariance-type", "EEE", "-o", other, "--overwrite", "--start", one],
    ):
        done = CliRunner().invoke(main, [*fit, *more])
        assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["covariance_type"] == "tied"
    choice = ["select", rows, "-k", "1..2", "--covariance-type", "EII,VVV", "-o", one, "--quiet"]
    choice += ["--overwrite", "--mclust-sign"]
    done = CliRunner().invoke(main, choice)
    assert done.exit_code == 0, done.output
    assert "2 L - p" in done.stdout
    done = CliRunner().invoke(main, [*choice, "--json"])
    assert set(json.loads(done.stdout)["mclust_bic"]) == {"EII", "VVV"}
    done = CliRunner().invoke(main, [*choice, "--criterion", "aic"])
    assert done.exit_code == 2
    done = CliRunner().invoke(main, ["plan", rows, "-k", "3", "--covariance-type", "VVE"])
    assert done.exit_code == 0, done.output


def test_select_takes_them_side_by_side() -> None:
    """Axes along the features and one shape: found among others, by their names."""
    rng = np.random.default_rng(0)
    sizes, labels = np.array([0.3, 1.0, 2.5]), rng.integers(0, 3, 900)
    rows = rng.normal(size=(900, 2)) * [1.0, 3.0] * sizes[labels, None]
    rows += np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 25.0]])[labels]
    kinds = ["EEI", "VEI", "EVI", "VVI", "VVE", "VVV"]
    search = select(rows, 3, kinds, random_state=0)
    assert search.best_params_ == {"n_components": 3, "covariance_type": "VEI"}
    assert [each["covariance_type"] for each in search.results_] == kinds
    table = search.mclust_bic()
    assert list(table) == kinds
    assert table["VEI"][3] == pytest.approx(-search.best_estimator_.bic(rows), rel=1e-9)
    assert max(each[3] for each in table.values()) == table["VEI"][3]
    with pytest.raises(UsageError, match="mclust's sign is of the bic"):
        search.set_params(criterion="aic").mclust_bic()
