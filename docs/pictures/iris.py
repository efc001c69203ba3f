"""
Three species of iris
=====================

Four measurements of 150 flowers, and a mixture that was told nothing of species. Its three
components are the three species, but for a few flowers.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_iris
from sklearn.metrics import adjusted_rand_score

from dgmm import GaussianMixture, plot

flowers, species = load_iris(return_X_y=True)
model = GaussianMixture(3, random_state=0).fit(flowers)
labels = model.predict(flowers)

colours = ["C0", "C1", "C2"]
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.scatter(flowers[:, 2], flowers[:, 3], s=12, c=[colours[k] for k in labels])
plot.ellipses(model, (2, 3), axes, colors=colours)
axes.set(xlabel="length of a petal, cm", ylabel="width of a petal, cm")
print(
    f"agreement with the species (adjusted Rand index): {adjusted_rand_score(species, labels):.2f}"
)
