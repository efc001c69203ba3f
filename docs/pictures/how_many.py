"""
How many components?
====================

Twenty-four candidates, fitted side by side in the same passes over the rows, and compared by BIC.
Candidates that can no longer win are dropped on the way.
"""

import matplotlib.pyplot as plt
import numpy as np

from dgmm import plot, select

random = np.random.default_rng(0)
centres = random.normal(scale=4, size=(5, 3))
rows = centres[random.integers(0, 5, size=20_000)] + random.normal(size=(20_000, 3))

search = select(rows, range(1, 9), ["full", "diag", "spherical"], random_state=0)

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
plot.selection(search, axes)
print(search.best_params_)
