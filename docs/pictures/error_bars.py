"""
Behind the error bars
=====================

Two thin streams, measured with errors that differ from row to row. A mixture of what was seen is
as blurred as the rows are; a mixture that knows the errors finds the streams.
"""

import matplotlib.pyplot as plt
import numpy as np

from dgmm import GaussianMixture, plot

random = np.random.default_rng(1)
along = random.normal(scale=2, size=(6_000, 1))
true = along * [1, 0.5] + random.normal(scale=0.1, size=(6_000, 2))
true[3_000:] = true[3_000:] * [1, -1] + [0, 1.5]
error = random.gamma(2, 0.3, size=(6_000, 1)) * [1, 1]
seen = true + error * random.normal(size=true.shape)

blurred = GaussianMixture(2, random_state=0).fit(seen)
sharp = GaussianMixture(2, random_state=0).fit(seen, noise=error**2)

shown = {
    "as measured": (seen, blurred),
    "with noise=variances": (seen, sharp),
    "the true values": (true, sharp),
}
figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True, layout="constrained")
for axes, (title, (rows, model)) in zip(panels, shown.items(), strict=True):
    axes.scatter(*rows.T, s=1, c="0.6")
    plot.ellipses(model, ax=axes)
    axes.set(title=title, xlim=(-6, 6), ylim=(-5, 5))
