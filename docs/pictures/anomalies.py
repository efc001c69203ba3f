"""
Rows that are unlike the rest
=============================

A mixture is a density, and rows where it is low are unlike the rest. Here eight components follow
a shape that is no mixture at all, and the line is drawn so that one row in two hundred lies
outside.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from dgmm import GaussianMixture

rows, _ = make_moons(20_000, noise=0.07, random_state=0)
model = GaussianMixture(8, random_state=0).fit(rows)
threshold = model.find_threshold(rows, rate=0.005).log_density
odd = model.outliers(rows, rate=0.005)

x, y = np.meshgrid(np.linspace(-1.6, 2.6, 300), np.linspace(-1.1, 1.6, 200))
surface = model.score_samples(np.column_stack([x.ravel(), y.ravel()])).reshape(x.shape)

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
levels = np.linspace(threshold, surface.max(), 12)
shaded = axes.contourf(x, y, surface, levels=levels, cmap="Blues", extend="neither")
axes.contour(x, y, surface, levels=[threshold], colors="C3", linewidths=1)
axes.scatter(*rows[odd].T, s=5, c="C3")
figure.colorbar(shaded, label="log-density")
