"""Fit a mixture to a NumPy array, as with scikit-learn."""

import numpy as np

from dgmm import GaussianMixture

rng = np.random.default_rng(0)
short = rng.normal([2.0, 54.0], [0.3, 6.0], size=(350, 2))
long = rng.normal([4.3, 80.0], [0.4, 6.0], size=(650, 2))
eruptions = np.concatenate([short, long])  # minutes of an eruption, minutes until the next

model = GaussianMixture(n_components=2, random_state=0).fit(eruptions)

print(f"converged after {model.n_iter_} iterations: {model.converged_}")
for weight, mean in zip(model.weights_, model.means_, strict=True):
    print(
        f"{weight:.0%} of eruptions: {mean[0]:.1f} minutes, then {mean[1]:.0f} minutes of waiting"
    )

# A mixture is a distribution: what does an eruption of 3 minutes say about the wait?
wait = model.mixture_.conditional([0], np.array([3.0]))
mean, variance = wait.moments()
print(f"after 3 minutes, wait {mean[0]:.0f} +- {variance[0] ** 0.5:.0f} minutes")
