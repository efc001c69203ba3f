"""Optima that mclust's documentation prints for small data sets: the default reaches them.

The data are R's and not part of the repository; benchmarks/published.py has all fifty.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from dgmm import ConjugatePrior, GaussianMixture, select

PLACE = Path(os.environ.get("DGMM_PUBLISHED", "published.npz"))

pytestmark = pytest.mark.skipif(
    not PLACE.is_file(), reason="no data: DGMM_PUBLISHED names the file of R's data sets"
)

PUBLISHED = {
    ("galaxies", "full", 3): -441.6122,
    ("galaxies", "full", 4): -443.3997,
    ("galaxies", "full", 5): -446.3497,
    ("acidity", "tied", 2): -392.0723,
    ("faithful", "tied", 3): -2314.316,
    ("faithful", "full", 6): -2387.016,
    ("faithful", "diag", 6): -2373.469,
    ("diabetes", "full", 3): -4734.561,
    ("iris", "full", 3): -580.8396,
    ("iris", "full", 5): -676.6061,
    ("iris", "tied", 5): -604.8131,
    ("iris", "spherical", 5): -742.6083,
}
"""2 L - p log N, where a single start often ends far below."""


def rows(name: str) -> np.ndarray:
    with np.load(PLACE) as file:
        data: np.ndarray = file[name]
    return data.reshape(len(data), -1)


@pytest.mark.parametrize(("name", "kind", "components"), PUBLISHED)
def test_the_default_is_not_below(name: str, kind: str, components: int) -> None:
    """By more than 0.05, which is what ``reg_covar`` costs; with warnings as errors."""
    data, published = rows(name), PUBLISHED[name, kind, components]
    for seed in (0, 4):
        model = GaussianMixture(components, covariance_type=kind, random_state=seed).fit(data)
        assert -model.bic(data) > published - 0.05


def test_what_select_chooses_is_what_mclust_does() -> None:
    """Three components of one covariance for Old Faithful, though likelier ones are singular."""
    data = rows("faithful")
    search = select(data, (3, 4, 5), ["full", "tied", "diag"], random_state=0)
    model = search.best_estimator_
    assert (model.covariance_type, model.n_components) == ("tied", 3)
    assert -model.bic(data) > PUBLISHED["faithful", "tied", 3] - 0.05


def test_standard_errors_are_near_those_of_a_bootstrap() -> None:
    """mclust's vignette has those of 999 replicates: of the weights, and the means of glucose."""
    data = rows("diabetes")
    model = GaussianMixture(3, n_init=3, reg_covar=0, random_state=0).fit(data)
    order = np.argsort(-model.weights_)
    for kind in ("observed", "sandwich"):
        errors = model.standard_errors(data, kind=kind)
        np.testing.assert_allclose(errors.weights[order], [0.0496, 0.0468, 0.0357], rtol=0.1)
        np.testing.assert_allclose(errors.means[order, 0], [1.03, 3.43, 16.45], rtol=0.25)
    refitted = model.bootstrap(data, n_replicates=100, refit=True)
    assert refitted.failed < 4
    errors = refitted.standard_errors()
    np.testing.assert_allclose(errors.weights[order], [0.0496, 0.0468, 0.0357], rtol=0.2)
    np.testing.assert_allclose(errors.means[order, 0], [1.03, 3.43, 16.45], rtol=0.2)


WITH_PRIOR = {
    ("faithful", "full", 2): -1130.50926367,
    ("faithful", "tied", 3): -1126.42717921,
    ("faithful", "diag", 2): -1229.21568993,
    ("faithful", "spherical", 3): -1637.50335793,
    ("iris", "full", 3): -192.695283865,
    ("iris", "tied", 3): -257.739376609,
    ("iris", "spherical", 3): -384.478676216,
}
"""Log-likelihoods at mclust 6.0.0's end, with ``prior=priorControl()`` and a tolerance of 1e-14."""


@pytest.mark.parametrize(("name", "kind", "components"), WITH_PRIOR)
def test_the_conjugate_prior_is_mclusts(name: str, kind: str, components: int) -> None:
    """mclust's scale of diagonal covariances is the mean of the variances for all features."""
    data = rows(name)
    d = data.shape[1]
    scale = np.full(d, data.var(axis=0, ddof=1).mean() / components ** (2 / d))
    prior = ConjugatePrior(scale=scale) if kind == "diag" else ConjugatePrior()
    model = GaussianMixture(
        components, covariance_type=kind, prior=prior, reg_covar=0, resolution=1e-6, random_state=0
    ).fit(data)
    reached = len(data) * model.score(data)
    assert reached == pytest.approx(WITH_PRIOR[name, kind, components], abs=1e-3)


WITH_NOISE = {
    ("full", 2): (-1554.07594843, 0.195204061958),
    ("tied", 3): (-1553.62647915, 0.18886138549),
    ("diag", 2): (-1560.5334351, 0.214575141463),
}
"""mclust 6.0.0's log-likelihood and weight of the noise, with a tolerance of 1e-14."""


@pytest.mark.parametrize(("kind", "components"), WITH_NOISE)
def test_the_noise_component_is_mclusts(kind: str, components: int) -> None:
    """Old Faithful among 60 points spread over a box; mclust's volume of the noise is given."""
    steps, golden, root = np.arange(60), 0.6180339887498949, 0.4142135623730951
    spread = np.c_[1.2 + 4.3 * (steps * golden % 1), 35 + 70 * (steps * root % 1)]
    data = np.vstack([rows("faithful"), spread])
    model = GaussianMixture(
        components,
        covariance_type=kind,
        noise_component=True,
        noise_volume=1 / 0.00340826450121,
        reg_covar=0,
        resolution=1e-6,
        random_state=0,
    ).fit(data)
    likelihood, weight = WITH_NOISE[kind, components]
    assert len(data) * model.score(data) == pytest.approx(likelihood, abs=1e-3)
    assert 1 - model.weights_.sum() == pytest.approx(weight, abs=1e-4)


CHEVRON = {
    "VVV": (-10525.211294, 0.753906),
    "EEE": (-10576.342479, 0.828766),
    "VVI": (-10577.640654, 0.803177),
    "VII": (-10579.376774, 0.802071),
}
"""The same of mclust's minefield, two components."""


@pytest.mark.parametrize("kind", CHEVRON)
def test_the_minefield_has_mclusts_noise(kind: str) -> None:
    with np.load(PLACE) as file:
        if "chevron" not in file:
            pytest.skip("the file of R's data sets has no `chevron`")
        data = file["chevron"]
    model = GaussianMixture(
        2,
        covariance_type=kind,
        noise_component=True,
        noise_volume=16021.8071078,
        reg_covar=0,
        resolution=1e-6,
        n_init=3,
        random_state=0,
    ).fit(data)
    likelihood, weight = CHEVRON[kind]
    assert len(data) * model.score(data) == pytest.approx(likelihood, abs=1e-3)
    assert 1 - model.weights_.sum() == pytest.approx(weight, abs=1e-4)


def turns(data: np.ndarray) -> np.ndarray:
    """Numbers spread over [0, 1), one for each value: where holes are, and how large errors."""
    places = np.arange(1, data.size + 1).reshape(data.shape)
    spread: np.ndarray = places**2 * 0.6180339887498949 % 1
    return spread


def with_holes(data: np.ndarray) -> np.ndarray:
    """A fifth of the values is lost."""
    return np.where(turns(data) < 0.2, np.nan, data)


NORM = {
    "iris": (
        [5.83796756010, 3.07527900124, 3.75122937130, 1.19681819309],
        [0.667428031315, 0.177279177258, 3.222004739111, 0.577972214060],
        [1.288485058514, -0.344924570777, 3.222004739111, 1.316336687889],
    ),
    "diabetes": (
        [121.508803173, 535.010278342, 179.456971863],
        [4234.66742112, 98389.8919850, 13198.76167653],
        [-3025.96020965, -13256.0510455, 13198.76167653],
    ),
}
"""Means, variances, and covariances with the third feature, by R's norm 1.0-11.1 (Schafer)."""


@pytest.mark.parametrize("name", NORM)
def test_one_component_of_rows_with_holes_is_norms(name: str) -> None:
    model = GaussianMixture(1, missing="marginalize", reg_covar=0, resolution=1e-9)
    model.fit(with_holes(rows(name)))
    means, variances, third = NORM[name]
    covariance = model.covariances_[0]
    np.testing.assert_allclose(model.means_[0], means, rtol=1e-6)
    np.testing.assert_allclose(covariance.diagonal(), variances, rtol=1e-6)
    np.testing.assert_allclose(covariance[2], third, rtol=1e-6)


IRIS = {
    "means_init": np.array([[5, 3.4, 1.5, 0.25], [5.9, 2.8, 4.3, 1.3], [6.6, 3, 5.6, 2]]),
    "weights_init": np.full(3, 1 / 3),
    "precisions_init": np.repeat(np.diag(1 / np.array([0.3, 0.1, 0.3, 0.1]))[None], 3, axis=0),
    "reg_covar": 0,
    "missing": "marginalize",
}
"""Where the fits below start."""


def test_three_components_of_rows_with_holes_are_mgmms() -> None:
    """R's MGMM 1.0.1.1 (McCaw, Julienne and Aschard, 2022) at its end, from the same start."""
    model = GaussianMixture(3, resolution=1e-9, **IRIS).fit(with_holes(rows("iris")))
    means = [
        [5.014835168295, 3.407995007521, 1.458857091346, 0.248988011149],
        [5.89647466183, 2.83188796389, 4.22270604744, 1.32005340602],
        [6.55786638736, 2.90725457672, 5.48187592967, 1.97408863290],
    ]
    variances = [
        [0.11197659431343, 0.15828257634681, 0.03326019771510, 0.01049324551020],
        [0.2122301209742, 0.1058819806199, 0.2165343444958, 0.0364297872257],
        [0.3878664372641, 0.1014764244333, 0.3450836364195, 0.0855585317813],
    ]
    weights = [0.340916911171, 0.286272524460, 0.372810564369]
    np.testing.assert_allclose(model.weights_, weights, rtol=1e-5)
    np.testing.assert_allclose(model.means_, means, rtol=1e-5)
    np.testing.assert_allclose(model.covariances_.diagonal(0, 1, 2), variances, rtol=1e-5)


XD = {
    "variances": (
        -1.5641778505115842,
        [0.333333333321, 0.346904547113, 0.319762119566],
        [6.568039463434, 2.990713772674, 5.57235856204, 2.050028145384],
        [-17.279439726053, -14.219681033755, -12.3526359246],
    ),
    "covariances": (
        -1.4581405846938251,
        [0.333333333366, 0.328775050233, 0.337891616401],
        [6.554193114746, 2.975401511479, 5.542496805337, 2.023268369594],
        [-16.762873717872, -13.75256346732, -11.159278432979],
    ),
    "variances and holes": (
        -1.6254279523111288,
        [0.340838580791, 0.337566838077, 0.321594581132],
        [6.610487976211, 2.943894008388, 5.564687839641, 1.99743128932],
        [-16.825868981359, -12.988943864936, -12.074421739099],
    ),
    "covariances and holes": (
        -1.5112828586649325,
        [0.340873407435, 0.316126963782, 0.342999628783],
        [6.5763663639, 2.918391394355, 5.545933968731, 1.996866654014],
        [-16.758002048416, -13.49311822181, -11.482345075194],
    ),
}
"""The objective, weights, the third mean, and log-determinants after 20 iterations of
extreme-deconvolution (Bovy, Hogg and Roweis); its holes are projections."""


@pytest.mark.parametrize("asked", XD)
def test_twenty_iterations_are_those_of_extreme_deconvolution(asked: str) -> None:
    data = rows("iris")
    noise = 0.1 * turns(data)
    if asked.startswith("covariances"):  # half of each error is common to a row's features
        roots = np.sqrt(noise)
        noise = (noise[:, None] * np.eye(4) + roots[:, None] * roots[:, :, None]) / 2
    if asked.endswith("holes"):
        data = with_holes(data)
    model = GaussianMixture(3, strategy="em", tol=0, max_iter=20, **IRIS)
    with pytest.warns(ConvergenceWarning):
        model.fit(data, noise=noise)
    objective, weights, mean, log_det = XD[asked]
    assert model.lower_bounds_[-1] == pytest.approx(objective, abs=1e-9)
    np.testing.assert_allclose(model.weights_, weights, atol=1e-9)
    np.testing.assert_allclose(model.means_[2], mean, atol=1e-8)
    np.testing.assert_allclose(np.linalg.slogdet(model.covariances_)[1], log_det, atol=1e-7)
