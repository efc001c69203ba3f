"""What tests of laws share: examples of mixtures, rows and statistics, from a seed."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from dgmm.em.first_pass import FirstPassSpec, first_pass
from dgmm.em.fit_context import FitContext
from dgmm.kernels.sweep import Block, tree_sum
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.mixture import Mixture

TOLERANCE = 1e-9
"""What the kernel promises of a log-density; not imported, so that it can't be loosened."""

seeds = st.integers(0, 2**32 - 1)

kinds = st.sampled_from(sorted(COVARIANCE_MODELS))

every_structure = pytest.mark.parametrize("kind", COVARIANCE_MODELS)


def laws(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


def covariances_of(kind: str, k: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Random positive definite covariances (K, D, D) of this structure, of condition below 100."""
    a = rng.normal(size=(k, d, d))
    dense = a @ a.swapaxes(1, 2) / d + 0.3 * np.eye(d)
    if kind == "tied":
        dense[:] = dense[0]
    elif kind == "diag":
        dense *= np.eye(d)
    elif kind == "spherical":
        dense = dense[:, :1, :1] * np.eye(d)
    return dense


def in_shape(kind: str, dense: np.ndarray) -> np.ndarray:
    """Matrices (K, D, D) as the structure holds them."""
    return {
        "full": lambda: dense,
        "tied": lambda: dense[0],
        "diag": lambda: np.diagonal(dense, axis1=1, axis2=2),
        "spherical": lambda: dense[:, 0, 0],
    }[kind]()


def a_mixture(kind: str, k: int, d: int, rng: np.random.Generator) -> Mixture:
    weights = rng.dirichlet(np.full(k, 3.0))
    precisions = np.linalg.inv(covariances_of(kind, k, d, rng))
    precisions = (precisions + precisions.swapaxes(1, 2)) / 2
    return Mixture.of(
        COVARIANCE_MODELS[kind], weights, rng.normal(size=(k, d)), in_shape(kind, precisions)
    )


def some_rows(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(n, d)) * 1.5


def some_weights(weighted: bool, n: int, rng: np.random.Generator) -> np.ndarray | None:
    return rng.integers(0, 3, n) * rng.uniform(0.1, 2.0, n) if weighted else None


def context_of(blocks: list[Block], model: CovarianceModel, reg_covar: float) -> FitContext:
    first_pass_spec = FirstPassSpec(sample=1000, seed=0, pairs=model.needs_scatter)
    found = tree_sum(first_pass(block, first_pass_spec) for block in blocks)
    return FitContext.of(found, model, reg_covar)


def a_start(rows: np.ndarray, kind: str, k: int, seed: int) -> Mixture:
    """Some rows as means, normals as wide as the data."""
    rng = np.random.default_rng([seed, 1])
    means = rows[rng.choice(len(rows), k, replace=False)]
    precision = 1.0 / np.maximum(rows.var(axis=0).max(), 1e-12)
    precisions = in_shape(kind, np.repeat(np.eye(rows.shape[1])[None] * precision, k, axis=0))
    return Mixture.of(COVARIANCE_MODELS[kind], rng.dirichlet(np.full(k, 5.0)), means, precisions)
