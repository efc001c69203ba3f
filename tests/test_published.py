"""Optima that mclust's documentation prints for small data sets: the default reaches them.

The data are R's and not part of the repository; benchmarks/published.py has all fifty.
"""

import os
from pathlib import Path

import numpy as np
import pytest

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
