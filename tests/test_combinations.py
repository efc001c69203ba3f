"""Laws of fits in every combination: covariances, holes, errors, tails, priors, noise, labels."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from dgmm import GaussianMixture
from dgmm.errors import DegenerateWarning, UsageError
from dgmm.model.covariance import COVARIANCE_TYPES, CovarianceType

N, ITERATIONS = 60, 8
ROUNDING = 1e-12
"""What rounding may take from an objective of size 1: some hundred times the unit of a double."""

FACTORS = {kind for kind, model in COVARIANCE_TYPES.items() if model.along_loadings}
PRIORS = {"full", "tied", "diag", "spherical", "VVV", "EEE", "VVI", "VII"}
"""The covariance types that have priors."""

few = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much],  # most combinations are refused
)


@dataclass(frozen=True)
class Fit:
    """A combination, and the seed of its rows."""

    kind: CovarianceType
    holes: Literal["raise", "marginalize", "drop"]
    errors: str
    tails: Literal["normal", "student"]
    prior: Literal["conjugate", "variational"] | None
    noise_component: bool
    fixed: str | None
    labels: str
    weighted: bool
    d: int
    k: int
    seed: int

    @property
    def refused(self) -> bool:
        """Whether there is no such fit: what the guide says of what goes together."""
        alone = self.tails == "student" or self.prior == "variational"
        return (
            (self.prior is not None and self.kind not in PRIORS)
            or (self.kind in FACTORS and self.holes == "marginalize")
            or (self.kind in FACTORS and self.tails == "student")
            or (self.kind in FACTORS and self.errors != "none")
            or (self.tails == "student" and self.prior is not None)
            or (self.tails == "student" and self.errors != "none")
            or (alone and self.noise_component)
            or (alone and self.fixed is not None)
            or (self.prior == "variational" and self.labels != "none")
        )

    @property
    def has_prior_of_pairs(self) -> bool:
        """Whether there is a prior made of the covariances between features.

        It is made of their variances instead where rows may have holes or errors.
        """
        return self.prior is not None and self.kind in {"full", "tied", "VVV", "EEE"}

    def rows(self) -> dict[str, Any]:
        """Rows, and what lies beside them."""
        rng = np.random.default_rng(self.seed)
        X = rng.normal(size=(N, self.d)) + 3.0 * rng.integers(0, self.k, size=(N, 1))
        if self.holes != "raise":
            X[rng.random(X.shape) < 0.2] = np.nan
            X[: self.k] = np.arange(self.k)[:, None]
        factors = rng.normal(size=(N, self.d, self.d)) / 2
        mask = np.ones((N, self.k), bool)
        mask[rng.random(N) < 0.3, 1:] = False
        numbers = np.where(mask.all(axis=1), -1, 0)
        return {
            "X": X,
            "noise": {
                "none": None,
                "variances": rng.uniform(0, 0.5, size=(N, self.d)),
                "covariances": factors @ factors.swapaxes(1, 2),
            }[self.errors],
            "labels": {"none": None, "numbers": numbers, "mask": mask}[self.labels],
            "sample_weight": rng.uniform(0.1, 2, N) if self.weighted else None,
        }

    def model(self, scale: float = 1.0, shift: float = 0.0) -> GaussianMixture:
        """Not yet fitted, to rows in a unit of 1 / scale from an origin that is ``shift`` below."""
        begin: dict[str, Any] = {}
        if self.fixed is not None:
            means = np.random.default_rng(self.seed).normal(size=(self.k, self.d))
            begin = {
                "means_init": scale * (means + shift),
                "weights_init": np.full(self.k, 1 / self.k),
            }
            begin["fixed"] = {self.fixed: [0]} if self.k > 1 else (self.fixed,)
        return GaussianMixture(
            self.k,
            covariance_type=self.kind,
            n_factors=1 if self.kind in FACTORS else None,
            missing=self.holes,
            tails=self.tails,
            prior=self.prior,
            noise_component=self.noise_component,
            strategy="em",
            max_iter=ITERATIONS,
            tol=0,
            precision="float64",
            random_state=0,
            **begin,
        )


fits = st.builds(
    Fit,
    kind=st.sampled_from(sorted(COVARIANCE_TYPES)),
    holes=st.sampled_from(["raise", "marginalize", "drop"]),
    errors=st.sampled_from(["none", "variances", "covariances"]),
    tails=st.sampled_from(["normal", "student"]),
    prior=st.sampled_from([None, "conjugate", "variational"]),
    noise_component=st.booleans(),
    fixed=st.sampled_from([None, "means", "weights"]),
    labels=st.sampled_from(["none", "numbers", "mask"]),
    weighted=st.booleans(),
    d=st.integers(2, 4),
    k=st.integers(2, 3),
    seed=st.integers(0, 2**32 - 1),
)
"""Of all that can be asked for."""

made = fits.filter(lambda fit: not fit.refused)


def fitted(fit: Fit, scale: float = 1.0, shift: float = 0.0, **changed: Any) -> GaussianMixture:
    """Whether it converged or has become singular is not what these tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", DegenerateWarning)
        return fit.model(scale, shift).fit(**{**fit.rows(), **changed})


def same(
    one: GaussianMixture, other: GaussianMixture, scale: float = 1.0, shift: float = 0.0
) -> None:
    """Assert that mixtures are the same, the other's rows in another unit, from another origin."""
    for name, power in (("weights", 0), ("means", 1), ("variances", 2)):
        expected = scale**power * (getattr(one.mixture_, name) + shift * (name == "means"))
        found = getattr(other.mixture_, name)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9 * expected.max())


@few
@given(fit=fits)
def test_what_does_not_go_together_is_refused_at_the_door(fit: Fit) -> None:
    if fit.refused:
        with pytest.raises(UsageError, match=r"leave out one|leave it out"):  # and both are named
            fitted(fit)
    else:
        fitted(fit)


@few
@given(fit=made)
def test_the_objective_never_falls(fit: Fit) -> None:
    model = fitted(fit)
    objectives = np.array([*model.lower_bounds_, model.lower_bound_])
    assert len(objectives) > 1
    assert np.isfinite(objectives).all()
    assert np.diff(objectives).min() >= -ROUNDING * (1 + np.abs(objectives).max())


@few
@given(fit=made)
def test_neither_the_unit_nor_the_origin_matters(fit: Fit) -> None:
    """A unit of a power of two, with which all products are the same to the bit."""
    scale, shift, rows = 1024.0, 16.0, fit.rows()
    rows["X"] = scale * (rows["X"] + shift)
    rows["noise"] = None if rows["noise"] is None else scale**2 * rows["noise"]
    same(fitted(fit), fitted(fit, scale, shift, **rows), scale, shift)


PLAIN = Fit("full", "raise", "none", "normal", None, False, None, "none", False, 2, 2, 0)


def nothing_beside(fit: Fit) -> Mapping[str, tuple[Fit, dict[str, Any]]]:
    """Ways to say nothing more than a fit without errors, weights and holes does."""
    complete = replace(fit, holes="raise")
    X = complete.rows()["X"]
    return {
        "errors of 0": (complete, {"noise": np.zeros_like(X)}),
        "weights of 1": (complete, {"sample_weight": np.ones(N)}),
        "no hole": (replace(complete, holes="marginalize"), {"X": X}),
        "no hole to drop": (replace(complete, holes="drop"), {"X": X}),
    }


NOTHING = list(nothing_beside(PLAIN))


@pytest.mark.parametrize("said", NOTHING)
@settings(few, max_examples=12)
@given(fit=made.map(lambda fit: replace(fit, errors="none", labels="none", weighted=False)))
def test_what_says_nothing_changes_nothing(said: str, fit: Fit) -> None:
    fit, more = nothing_beside(fit)[said]
    plain = replace(fit, holes="raise")
    asked = replace(fit, errors="variances") if "noise" in more else fit
    assume(not asked.refused)
    if asked.holes == "marginalize" or "noise" in more:
        assume(not asked.has_prior_of_pairs)
    same(fitted(plain), fitted(fit, **more))


@few
@given(fit=made.map(lambda fit: replace(fit, holes="marginalize", errors="none")))
def test_a_value_of_infinite_variance_is_missing(fit: Fit) -> None:
    assume(not replace(fit, errors="variances").refused)
    X = fit.rows()["X"]
    noise = np.where(np.isnan(X), np.inf, 0.0)
    same(fitted(fit), fitted(fit, X=np.nan_to_num(X, nan=7.0), noise=noise))
