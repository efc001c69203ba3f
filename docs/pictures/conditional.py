"""
What one feature says of another
================================

A mixture of rows (x, y) is also a regression: given x, the distribution of y is a mixture again,
whose middle and spread need not be a line, nor the same everywhere.
"""

import matplotlib.pyplot as plt
import numpy as np

from dgmm import GaussianMixture

random = np.random.default_rng(0)
x = random.uniform(0, 10, size=10_000)
y = np.sin(x) * x / 3 + random.normal(size=10_000) * (0.2 + 0.08 * x)

model = GaussianMixture(10, random_state=0).fit(np.column_stack([x, y]))
places = np.linspace(0.2, 9.8, 120)[:, None]
low, middle, high = model.regress(places, [1], "quantiles", quantiles=[0.05, 0.5, 0.95])[:, 0].T

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.scatter(x[::4], y[::4], s=1, c="0.7")
axes.fill_between(places[:, 0], low, high, alpha=0.2)
axes.plot(places, middle)
axes.set(xlabel="x", ylabel="y given x: median, and nine rows in ten")
