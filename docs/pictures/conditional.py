"""
What one feature says of another
================================

A mixture of rows (x, y) is also a regression: given x, the distribution of y is a mixture again,
whose mean and spread need not be a line, nor the same everywhere.
"""

import matplotlib.pyplot as plt
import numpy as np

from dgmm import GaussianMixture

random = np.random.default_rng(0)
x = random.uniform(0, 10, size=10_000)
y = np.sin(x) * x / 3 + random.normal(size=10_000) * (0.2 + 0.08 * x)

model = GaussianMixture(10, random_state=0).fit(np.column_stack([x, y]))
places = np.linspace(0.2, 9.8, 120)
given = [model.mixture_.conditional([0], np.array([place])).moments() for place in places]
mean = np.array([m[0] for m, _ in given])
spread = np.sqrt([v[0] for _, v in given])

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.scatter(x[::4], y[::4], s=1, c="0.7")
axes.fill_between(places, mean - 2 * spread, mean + 2 * spread, alpha=0.2)
axes.plot(places, mean)
axes.set(xlabel="x", ylabel="y given x, with two standard deviations")
