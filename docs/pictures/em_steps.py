"""
EM, step by step
================

A start, and the mixture after one, two, four and twenty steps of textbook EM. ``max_iter`` ends a
fit early, ``warm_start=True`` goes on from where it was.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np

from dgmm import GaussianMixture, plot

random = np.random.default_rng(3)
centres = np.array([[-3, 0], [3, 1], [0, 4]])
rows = centres[random.integers(0, 3, size=3_000)] + random.normal(size=(3_000, 2)) * [1.2, 0.7]

start = dict(means_init=[[-1, -2], [0, -2], [1, -2]], weights_init=[1 / 3] * 3)
start["precisions_init"] = np.array([np.eye(2)] * 3)
figure, panels = plt.subplots(1, 5, figsize=(10, 2.6), sharey=True, layout="constrained")
for axes, steps in zip(panels, [0, 1, 2, 4, 20], strict=True):
    model = GaussianMixture(3, strategy="em", max_iter=steps, tol=0, **start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        model.fit(rows)
    axes.scatter(*rows.T, s=1, c="0.7")
    plot.ellipses(model, ax=axes)
    axes.set(title=f"{steps} steps", xlim=(-7, 7), ylim=(-4, 7))
    axes.set_xlabel(f"log-likelihood {model.score(rows):.2f}")
