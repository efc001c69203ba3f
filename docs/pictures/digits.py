"""
Digits that nobody wrote
========================

1,797 handwritten digits of 8 x 8 pixels are rows of 64 features. The mixture's means are kinds of
writing; and as a mixture is a distribution, new digits can be drawn from it. 1,797 rows are few
for 20 components with 64 features each: a conjugate prior holds their covariances up.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from dgmm import ConjugatePrior, GaussianMixture

digits = load_digits().data
varies = digits.std(axis=0) > 0.5  # pixels in the margin say nothing
model = GaussianMixture(20, prior=ConjugatePrior(), random_state=0).fit(digits[:, varies])

drawn, _ = model.sample(20)
shown = {"means of the components": model.means_, "draws from the mixture": drawn}
figure = plt.figure(figsize=(8, 4.4), layout="constrained")
for (title, values), part in zip(shown.items(), figure.subfigures(2, 1), strict=True):
    part.suptitle(title)
    for value, axes in zip(values, part.subplots(2, 10).ravel(), strict=True):
        digit = digits.min(axis=0)
        digit[varies] = value
        axes.imshow(digit.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        axes.set_axis_off()
