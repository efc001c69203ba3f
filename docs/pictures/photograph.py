"""
A photograph in twelve regions
==============================

Each pixel is a row of five features: its colour, and where it is. A mixture of twelve normal
distributions describes them all; each pixel is then shown in the mean colour of its component.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

from dgmm import GaussianMixture

image = load_sample_image("china.jpg")[::2, ::2] / 255.0
height, width, _ = image.shape
y, x = np.mgrid[:height, :width] / width
rows = np.dstack([image, x, y]).reshape(-1, 5)

# Colours are rounded to 1 / 255.  Noise of that size undoes it, so that no component describes it.
rows[:, :3] += np.random.default_rng(0).uniform(-0.5, 0.5, size=(len(rows), 3)) / 255
model = GaussianMixture(12, random_state=0).fit(rows)
labels = model.predict(rows).reshape(height, width)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.imshow(image)
left.set_title("the photograph")
right.imshow(model.means_[labels, :3].clip(0, 1))
right.set_title("each pixel in its component's mean colour")
for axes in (left, right):
    axes.set_axis_off()

# %%
# The photograph is *Summer Palace* by danielbuechele, CC BY 2.0; it comes with scikit-learn.
