"""
Climate zones of a made-up planet
=================================

A cube of two variables, each with axes for month, latitude and longitude. Every place is a row;
its features are the twelve months of both variables. Labels come back as a map, with its
coordinates.
"""

import matplotlib.pyplot as plt
import numpy as np
import xarray

from dgmm import GaussianMixture, open_dataset

random = np.random.default_rng(0)
month, lat, lon = np.arange(12), np.linspace(-88, 88, 89), np.linspace(0, 358, 180)
warm, north = np.cos(np.radians(lat))[:, None], np.sin(np.radians(lat))[:, None]
season = np.cos(2 * np.pi * (month - 6) / 12)[:, None, None]
land = 0.5 + 0.5 * np.tanh(4 * np.sin(np.radians(2 * lon + 40)) * warm)
temperature = 40 * warm - 12 + season * north * (4 + 18 * land) + random.normal(size=(12, 89, 180))
rain = (
    200 * warm**8
    + 60 * warm * (1 - land) * (1 + 0.5 * season)
    + 8 * random.normal(size=(12, 89, 180))
)
axes = {"month": month, "lat": lat, "lon": lon}
planet = xarray.Dataset(
    {"temperature": (tuple(axes), temperature), "rain": (tuple(axes), rain)}, coords=axes
)

features = planet.to_array("variable").stack(feature=("variable", "month"))
zones = GaussianMixture(6, random_state=0).fit_predict(
    open_dataset(features, features_dim="feature")
)

figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
axis.pcolormesh(zones["lon"], zones["lat"], zones, cmap="Set2")
axis.set(xlabel="longitude", ylabel="latitude", title="six zones")
