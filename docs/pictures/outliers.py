"""
Rows of no cluster
==================

Two clusters, and one row in ten that belongs to neither. Normal distributions must stretch to
reach those rows; a component of constant density takes them, and t distributions hardly mind.
"""

import matplotlib.pyplot as plt
import numpy as np

from dgmm import GaussianMixture, plot

random = np.random.default_rng(0)
rows = random.normal(size=(3_000, 2)) @ [[1, 0.6], [0, 0.5]]
rows[1_500:] += [7, 0]
rows[::10] = random.uniform([-20, -15], [27, 15], size=(300, 2))

models = {
    "normal": GaussianMixture(2, random_state=0),
    "noise_component=True": GaussianMixture(2, noise_component=True, random_state=0),
    'tails="student"': GaussianMixture(2, tails="student", random_state=0),
}
figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True, layout="constrained")
for axes, (name, model) in zip(panels, models.items(), strict=True):
    model.fit(rows)
    axes.scatter(*rows.T, s=1, c="0.6")
    plot.ellipses(model, ax=axes)
    axes.set(title=name, xlim=(-20, 27), ylim=(-15, 15))
