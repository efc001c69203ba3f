"""
Fourteen shapes of covariances
==============================

Volumes, shapes and axes of components may each be equal (E), vary (V), or be those of the
coordinates (I): the fourteen models of mclust, by their names. Here all are fitted to the same
three clusters, and the title has the BIC of each, less the best one's.
"""

import matplotlib.pyplot as plt
import numpy as np

from dgmm import GaussianMixture, plot

random = np.random.default_rng(0)
turned = np.array([[0.8, 0.6], [-0.6, 0.8]])
rows = np.concatenate(
    [
        random.normal(size=(500, 2)) * [2.0, 0.4] @ turned,
        random.normal(size=(500, 2)) * [2.0, 0.4] @ turned * 0.5 + [4, 3],
        random.normal(size=(500, 2)) * [2.0, 0.4] @ turned * 0.7 + [-4, 3],
    ]
)

names = [
    *("EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE"),
    *("VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV"),
]
models = {name: GaussianMixture(3, covariance_type=name, random_state=0) for name in names}
bic = {name: model.fit(rows).bic(rows) for name, model in models.items()}

figure, panels = plt.subplots(2, 7, figsize=(11, 4), sharex=True, sharey=True, layout="constrained")
for axes, (name, model) in zip(panels.ravel(), models.items(), strict=True):
    axes.scatter(*rows.T, s=0.5, c="0.7")
    plot.ellipses(model, ax=axes)
    axes.set(title=f"{name}  +{bic[name] - min(bic.values()):.0f}", xticks=[], yticks=[])
