"""
As many components as are needed
================================

A variational fit with a Dirichlet process is given twelve components. Those that the rows do not
need lose their weight, more of them when there are fewer rows.
"""

import matplotlib.pyplot as plt
import numpy as np

from dgmm import BayesianGaussianMixture

random = np.random.default_rng(0)
kinds = random.choice(4, 5_000, p=[0.4, 0.3, 0.2, 0.1])
centres = np.array([[1, 20], [4, 25], [8, 15], [3, 50]])
rows = centres[kinds] + random.normal(size=(5_000, 2)) * [0.8, 4]

figure, panels = plt.subplots(1, 3, figsize=(9, 2.8), sharey=True, layout="constrained")
for axes, size in zip(panels, [20, 200, 5_000], strict=True):
    model = BayesianGaussianMixture(12, random_state=0, max_iter=1000).fit(rows[:size])
    unused = model.fit_info_["unused"]
    order = np.argsort(-model.weights_)
    colours = ["0.8" if k in unused else "C0" for k in order]
    axes.bar(np.arange(1, 13), model.weights_[order], color=colours)
    axes.set(
        title=f"{size:,} rows: {12 - len(unused)} are used",
        xlabel="components",
        xticks=[1, 4, 8, 12],
    )
panels[0].set_ylabel("weight")
