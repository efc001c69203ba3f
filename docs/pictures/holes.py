"""
Filling holes: best guesses and draws
=====================================

Of half the rows the second feature is missing. A model of rows with holes
(``missing="marginalize"``) fills them in two ways: by what is expected, the best guess of each
row, or by draws, which are spread as the rows are.
"""

import matplotlib.pyplot as plt
import numpy as np

from dgmm import GaussianMixture

random = np.random.default_rng(0)
whole = random.normal(size=(4_000, 2)) @ [[1, 0.8], [0, 0.4]]
whole[2_000:] = random.normal(size=(2_000, 2)) @ [[1, -0.8], [0, 0.4]] + [2.5, 3]
rows = whole.copy()
rows[::2, 1] = np.nan

model = GaussianMixture(2, missing="marginalize", random_state=0).fit(rows)
shown = {
    "the truth": whole,
    "impute(rows)": model.impute(rows),
    "impute(rows, sample=True)": model.impute(rows, sample=True),
}
figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True, layout="constrained")
for axes, (title, values) in zip(panels, shown.items(), strict=True):
    axes.scatter(*values[1::2].T, s=2, c="0.7", label="complete")
    axes.scatter(*values[::2].T, s=2, c="C3", label="had a hole")
    axes.set(title=title, ylim=(-4, 8))
panels[0].legend(markerscale=4)
