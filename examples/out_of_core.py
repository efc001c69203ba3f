"""Fit a mixture to a Zarr array block by block, and write each row's label.

Usage: python out_of_core.py [ROWS]
"""

import sys

import numpy as np
import zarr

import dgmm

rows = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000

# Data that is made, and kept, a chunk at a time.
rng = np.random.default_rng(0)
centres = rng.normal(scale=4.0, size=(5, 8))
store = zarr.create_array(
    "big-rows.zarr", shape=(rows, 8), chunks=(50_000, 8), dtype="float32", overwrite=True
)
for start in range(0, rows, 50_000):
    count = min(50_000, rows - start)
    store[start : start + count] = centres[rng.integers(5, size=count)] + rng.normal(
        size=(count, 8)
    )

# What will it take?  A fit that would not fit into 1 GiB is refused.
model = dgmm.GaussianMixture(5, random_state=0, memory="1GiB")
plan = model.plan("big-rows.zarr")
print(f"{plan.rows:,} rows in {plan.blocks} blocks, at most {plan.peak_bytes >> 20} MiB")

model.fit("big-rows.zarr")
print(f"{model.fit_info_['passes']} passes, score {model.fit_info_['score']:.4f}")

# Labels are a lazy Dask array; storing it reads and writes a block at a time.
model.predict("big-rows.zarr").to_zarr("big-labels.zarr", overwrite=True)
counts = np.bincount(zarr.open_array("big-labels.zarr", mode="r")[:])
print("rows per component:", *sorted(counts.tolist()))
