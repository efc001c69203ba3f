"""Fit a mixture on a Dask cluster: where a Client is active, its workers do the reading.

The cluster here is two processes of this machine; any address will do: Client("tcp://...").
"""

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

from dgmm import GaussianMixture

if __name__ == "__main__":
    random = da.random.default_rng(0)
    groups = 6 * random.integers(0, 2, size=(400_000, 1), chunks=50_000)
    rows = random.normal(size=(400_000, 3), chunks=(50_000, 3)) + groups
    rows.to_zarr("cluster-rows.zarr", overwrite=True)

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
    ):
        there = GaussianMixture(2, random_state=0).fit("cluster-rows.zarr")
        print(f"{there.fit_info_['engine']}: score {there.lower_bound_:.6f}")

    here = GaussianMixture(2, random_state=0).fit("cluster-rows.zarr")
    print(f"{here.fit_info_['engine']}: score {here.lower_bound_:.6f}")
    print("the same to the last bit:", np.array_equal(there.means_, here.means_))
