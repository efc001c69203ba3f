"""
Pairs of features
=================

A million rows of four features, counted in one pass over them, and three components: on the
diagonal each feature by itself, below it in pairs, with ellipses of one and two standard deviations
over the density of the rows.
"""

import numpy as np

from dgmm import GaussianMixture, plot

random = np.random.default_rng(0)
centres = np.array([[0, 0, 0, 0], [4, 3, 0, 1], [-3, 4, 2, 0]])
root = np.linalg.cholesky(0.5 * np.eye(4) + 0.5)
rows = centres[random.integers(0, 3, size=1_000_000)] + random.normal(size=(1_000_000, 4)) @ root.T

model = GaussianMixture(3, random_state=0).fit(rows)
_ = plot.pairs(model, model.overview(rows))
