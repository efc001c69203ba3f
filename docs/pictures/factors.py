"""
Many features: factor analysers
===============================

In 64 features a full covariance has 2,080 parameters, and an uncorrelated one says that
neighbouring pixels have nothing to do with each other. A factor analyser lies between: a few
directions in which a component varies, and noise. Draws show what each of the two believes a
digit to be.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from dgmm import GaussianMixture

digits = load_digits().data
varies = digits.std(axis=0) > 0.5  # pixels in the margin say nothing
# Numbers are whole; noise of half a step, up and down, undoes the rounding.
rows = digits[:, varies] + np.random.default_rng(0).uniform(-0.5, 0.5, (len(digits), varies.sum()))
models = {
    'covariance_type="diag"': GaussianMixture(10, covariance_type="diag", random_state=0),
    'covariance_type="factor-tied", n_factors=4': GaussianMixture(
        10, covariance_type="factor-tied", n_factors=4, random_state=0
    ),
}
figure = plt.figure(figsize=(8, 3), layout="constrained")
for (title, model), part in zip(models.items(), figure.subfigures(2, 1), strict=True):
    drawn, _ = model.fit(rows).sample(10)
    part.suptitle(title)
    for value, axes in zip(drawn, part.subplots(1, 10), strict=True):
        digit = digits.min(axis=0)
        digit[varies] = value
        axes.imshow(digit.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        axes.set_axis_off()
