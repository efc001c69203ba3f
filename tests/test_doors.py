"""Every form that rows may have, and what can be done with each: the same, with the same result.

The table of docs/guide/data.md is made of these forms.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from distributed import Client

from dgmm import GaussianMixture, MixtureSearch, load, open_dataset

N, HALF = 600, 300
NAMES = ["a", "b", "c"]
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(N, 3)) + 6.0 * (np.arange(N) % 2)[:, None]
WEIGHTS = RNG.uniform(0.5, 2, N)
FRAME = pd.DataFrame(ROWS, columns=NAMES)
TABLE = pa.table({name: ROWS[:, j] for j, name in enumerate(NAMES)} | {"w": WEIGHTS})


@dataclass(frozen=True)
class Form:
    """A form of rows and their weights.

    Attributes
    ----------
    make : callable
        Gives both, in a directory.
    names : bool
        Whether the features have names.
    halves : bool
        Whether there are two blocks; else all rows are one.
    dims : tuple of str
        Of what is said of rows, for arrays of xarray.
    opened : bool
        Whether it is said which variables are the features, by open_dataset.
    s3 : str
        What tests/test_s3.py calls it there; "no" if it is told that it must lie here.
    """

    make: Callable[[Path], tuple[Any, Any]]
    names: bool = False
    halves: bool = False
    dims: tuple[str, ...] = ()
    opened: bool = False
    s3: str = ""

    def fit(self, model: Any, rows: Any, weights: Any = None) -> Any:
        """Fit a model to rows of this form."""
        if self.opened:
            return model.fit(open_dataset(rows, weights, columns=NAMES))
        return model.fit(rows, **({} if weights is None else {"sample_weight": weights}))


def npy(at: Path) -> tuple[Any, Any]:
    np.save(at / "x.npy", ROWS)
    np.save(at / "w.npy", WEIGHTS)
    return at / "x.npy", at / "w.npy"


def npz(at: Path) -> tuple[Any, Any]:
    np.savez(at / "x.npz", x=ROWS, w=WEIGHTS)
    return f"{at}/x.npz::x", f"{at}/x.npz::w"


def stored(at: Path) -> zarr.Group:
    group = zarr.create_group(at / "x.zarr")
    for name, values in {"x": ROWS, "w": WEIGHTS, **dict(zip(NAMES, ROWS.T, strict=True))}.items():
        group.create_array(name, data=values, chunks=(HALF, *values.shape[1:]))
    return group


def zarr_path(at: Path) -> tuple[Any, Any]:
    stored(at)
    return at / "x.zarr/x", at / "x.zarr/w"


def zarr_variables(at: Path) -> tuple[Any, Any]:
    stored(at)
    return at / "x.zarr", at / "x.zarr/w"


def zarr_array(at: Path) -> tuple[Any, Any]:
    group = stored(at)
    return group["x"], group["w"]


def parquet(at: Path) -> tuple[Any, Any]:
    (at / "x.parquet").mkdir()
    for i in range(2):
        half = TABLE.slice(HALF * i, HALF)
        pq.write_table(half.select(NAMES), at / f"x.parquet/{i}.parquet", row_group_size=100)
    pq.write_table(TABLE, at / "w.parquet")
    return at / "x.parquet", f"{at}/w.parquet::w"


def arrow(at: Path) -> tuple[Any, Any]:
    pa.feather.write_feather(TABLE.select(NAMES), str(at / "x.feather"), chunksize=100)
    pa.feather.write_feather(TABLE, str(at / "w.arrow"))
    return at / "x.feather", f"{at}/w.arrow::w"


def text(at: Path) -> tuple[Any, Any]:
    FRAME.to_csv(at / "x.csv")
    FRAME.assign(w=WEIGHTS).to_csv(at / "w.tsv", sep="\t")
    return at / "x.csv", f"{at}/w.tsv::w"


def hdf(at: Path) -> tuple[Any, Any]:
    with h5py.File(at / "x.nc", "w") as file:
        file.create_dataset("group/x", data=ROWS, chunks=(100, 3))
        file["w"] = WEIGHTS
    return f"{at}/x.nc::/group/x", f"{at}/x.nc::w"


def hdf_variables(at: Path) -> tuple[Any, Any]:
    with h5py.File(at / "x.nc", "w") as file:
        for name, values in zip([*NAMES, "w"], [*ROWS.T, WEIGHTS], strict=True):
            file.create_dataset(name, data=values.reshape(20, 30), chunks=(5, 30))
    return at / "x.nc", WEIGHTS


def geotiff(at: Path) -> tuple[Any, Any]:
    library = pytest.importorskip("rasterio")
    size = {"height": 20, "width": 30, "dtype": "float64", "count": 3, "crs": "EPSG:32633"}
    place = {"transform": library.Affine(10, 0, 5e5, 0, -10, 5.2e6)}
    with library.open(at / "x.tif", "w", driver="GTiff", **size, **place) as file:
        file.write(ROWS.T.reshape(3, 20, 30))
        file.descriptions = NAMES
    return at / "x.tif", WEIGHTS


def hdf_object(at: Path) -> tuple[Any, Any]:
    hdf(at)
    file = h5py.File(at / "x.nc")
    return file["group/x"], file["w"]


def polars(at: Path) -> tuple[Any, Any]:
    library = pytest.importorskip("polars")
    frame = library.from_arrow(TABLE)
    return frame.select(NAMES), frame["w"]


def image(lazy: bool) -> Callable[[Path], tuple[Any, Any]]:
    """Rows on two axes; lazy ones in halves along the first."""

    def make(at: Path) -> tuple[Any, Any]:
        coords = {"band": NAMES, "y": np.arange(20.0)}
        array = xr.DataArray(ROWS.reshape(20, 30, 3), dims=("y", "x", "band"), coords=coords)
        weights = xr.DataArray(WEIGHTS.reshape(20, 30), dims=("y", "x"))
        return (array.chunk({"y": 10}), weights.chunk()) if lazy else (array, weights)

    return make


def variables(at: Path) -> tuple[Any, Any]:
    both = {**dict(zip(NAMES, ROWS.T, strict=True)), "w": WEIGHTS}
    dataset = xr.Dataset({name: ("row", values) for name, values in both.items()})
    return dataset[NAMES], dataset["w"]


def dask_array(at: Path) -> tuple[Any, Any]:
    return da.from_array(ROWS, chunks=(HALF, 3)), da.from_array(WEIGHTS, chunks=100)


def dask_frame(at: Path) -> tuple[Any, Any]:
    frame = dd.from_pandas(FRAME.assign(w=WEIGHTS), npartitions=2)
    return frame[NAMES], frame["w"]


FORMS = {
    "NumPy": Form(lambda at: (ROWS, WEIGHTS)),
    "list": Form(lambda at: (ROWS.tolist(), WEIGHTS.tolist())),
    ".npy": Form(npy, s3="no"),
    ".npz": Form(npz, s3="no"),
    "Zarr": Form(zarr_path, s3="plain"),
    "zarr.Array": Form(zarr_array, s3="plain"),
    "Zarr, variables": Form(zarr_variables, names=True, opened=True, s3="group"),
    "Parquet": Form(parquet, names=True, s3="table"),
    "Arrow": Form(arrow, names=True, s3="no"),
    "CSV": Form(text, names=True, s3="csv"),
    "HDF5, NetCDF": Form(hdf, s3="h5"),
    "HDF5, NetCDF, variables": Form(hdf_variables, names=True, opened=True, s3="variables"),
    "h5py.Dataset": Form(hdf_object),
    "GeoTIFF": Form(geotiff, names=True, s3="tif"),
    "pandas": Form(lambda at: (FRAME, pd.Series(WEIGHTS)), names=True),
    "polars": Form(polars, names=True),
    "pyarrow.Table": Form(lambda at: (TABLE.select(NAMES), TABLE.column("w")), names=True),
    "dask.array": Form(dask_array, halves=True),
    "dask.dataframe": Form(dask_frame, names=True, halves=True),
    "DataArray": Form(image(lazy=False), names=True, dims=("y", "x")),
    "DataArray, lazy": Form(image(lazy=True), names=True, halves=True, dims=("y", "x")),
    "xarray.Dataset": Form(variables, names=True, dims=("row",)),
}


def search() -> MixtureSearch:
    return MixtureSearch(GaussianMixture(random_state=0), n_components=[1, 2])


@pytest.fixture(scope="module")
def references() -> dict[bool, tuple[GaussianMixture, MixtureSearch]]:
    """Of all rows as one block, and as two: fits with weights, and selections without."""
    lazy, weights = dask_array(Path())
    made = {
        False: (GaussianMixture(2, random_state=0).fit(ROWS, sample_weight=WEIGHTS), ROWS),
        True: (GaussianMixture(2, random_state=0).fit(lazy, sample_weight=weights), lazy),
    }
    return {halves: (model, search().fit(rows)) for halves, (model, rows) in made.items()}


def values(answer: Any, dims: tuple[str, ...]) -> np.ndarray:
    """What is said of rows, (N,), which is as lazy as they are."""
    if dims:
        assert answer.dims[: len(dims)] == dims
        answer = answer.data
    return np.asarray(answer).reshape(N, -1).squeeze()


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_rows_can_be_used_for_everything(
    name: str,
    references: dict[bool, tuple[GaussianMixture, MixtureSearch]],
    clusters: Mapping[int, Client],
    tmp_path: Path,
) -> None:
    form = FORMS[name]
    expected, sought = references[form.halves]
    rows, weights = form.make(tmp_path)

    model = form.fit(GaussianMixture(2, random_state=0), rows, weights)
    assert model.means_.tobytes() == expected.means_.tobytes()
    assert model.covariances_.tobytes() == expected.covariances_.tobytes()
    for other, _ in references.values():  # in other blocks
        np.testing.assert_allclose(model.means_, other.means_, rtol=1e-9)
        np.testing.assert_allclose(model.covariances_, other.covariances_, rtol=1e-9)

    model.save(tmp_path / "model.dgmm")
    for each in (model, load(tmp_path / "model.dgmm")):
        assert list(getattr(each, "feature_names_in_", [])) == NAMES * form.names
    labels = values(model.predict(rows), form.dims)
    np.testing.assert_array_equal(labels, expected.predict(ROWS))
    proba = values(model.predict_proba(rows), form.dims)
    np.testing.assert_allclose(proba, expected.predict_proba(ROWS), atol=1e-15)
    score = model.score(rows, sample_weight=weights)
    assert score == pytest.approx(expected.score(ROWS, sample_weight=WEIGHTS), rel=1e-12)

    chosen = form.fit(search(), rows)
    assert chosen.best_estimator_.means_.tobytes() == sought.best_estimator_.means_.tobytes()
    with clusters[1].as_current():
        spread = form.fit(GaussianMixture(2, random_state=0), rows, weights)
    assert spread.means_.tobytes() == expected.means_.tobytes()


TABLE_HEAD = (
    "| rows in | fit, weights, predict, score, select | cluster | names kept | from S3 | MiB |",
    "| --- | --- | --- | --- | --- | --- |",
)
S3 = {"": "-", "no": "must lie here"}
HERE = Path(__file__).parent.parent


def test_the_guide_has_the_table_of_these_forms() -> None:
    """What memory each took was measured by ``python -m benchmarks holding``."""
    measured = dict(
        re.findall(
            r"^\| (.*?) \| \d+MiB \| ([\d,]+) MiB \| (?:[\d,]+ MiB|-) \|",
            (HERE / "benchmarks/README.md").read_text(),
            re.M,
        )
    )
    lines = [
        f"| {name} | yes | yes | {'yes' if form.names else '-'} | {S3.get(form.s3, 'yes')} | "
        f"{measured.get(name, '-')} |"
        for name, form in FORMS.items()
    ]
    assert set(FORMS) - set(measured) <= {"list", "pandas", "xarray.Dataset"}  # all in memory
    assert "\n".join([*TABLE_HEAD, *lines]) in (HERE / "docs/guide/data.md").read_text()


LAZY = """
import resource, sys
import dask.array as da, dask.dataframe as dd, numpy as np, xarray as xr
from dgmm import GaussianMixture

piece = np.random.default_rng(0).normal(size=(50_000, 12)) + 6 * (np.arange(50_000) % 2)[:, None]
rows = da.map_blocks(
    lambda block_info: piece + 1e-9,
    chunks=((50_000,) * 100, (12,)),
    dtype="f8",
    meta=np.empty((0, 0)),
)
names = [f"feature {j}" for j in range(12)]
make = {
    "xarray": lambda: xr.DataArray(rows, dims=("row", "feature"), coords={"feature": names}),
    "dask": lambda: dd.from_dask_array(rows, columns=names),
}
data = make[sys.argv[1]]()
model = GaussianMixture(2, random_state=0, memory="600MiB", max_iter=1).fit(data)
assert list(model.feature_names_in_) == names
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.memory
@pytest.mark.parametrize("form", ["xarray", "dask"])
def test_lazy_frames_larger_than_the_memory_allowed_keep_to_it(form: str) -> None:
    """Rows of 458 MiB, in 600 MiB, of which half is taken by what is imported."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Of a small process: the peak of a child counts its parent's when it was made.
    command = f"[sys.executable, '-c', {LAZY!r}, {form!r}]"
    measured = f"import subprocess, sys; subprocess.run({command}, check=True)"
    done = subprocess.run(
        [sys.executable, "-c", measured],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 600 << 20
