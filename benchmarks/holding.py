"""What a fit to ten million rows takes at most, whatever form they come in."""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import process
from benchmarks.table import Cell, mebibytes, show
from benchmarks.timing import say

DIMS, PIECE, GROUP = 12, 50_000, 100_000
NAMES = [f"x{j}" for j in range(DIMS)]

NOTE = """\
Each is a process of its own, which opens the rows, float64, fits two components, and ends.
"measured" is the most memory that the process had at once, with all libraries.
Rows that are in memory are there before the fit: "beside the rows" is the whole less their size.
Row groups of Parquet, which are blocks, have 100,000 rows (9 MiB)."""

FIT = """
import json, sys
import numpy as np
from dgmm import GaussianMixture
form, place, rows, memory = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
names = [f"x{j}" for j in range(12)]

def piece():
    return np.random.default_rng(0).normal(size=(50_000, 12)) + 6 * (np.arange(50_000) % 2)[:, None]

def whole():
    made, one = np.empty((rows, 12)), piece()
    for start in range(0, rows, 50_000):
        made[start : start + 50_000] = one
    return made

def columns():
    one = piece()
    return {name: np.tile(one[:, j], rows // 50_000) for j, name in enumerate(names)}

def lazy():
    import dask.array as da
    one = piece()
    chunks = ((50_000,) * (rows // 50_000), (12,))
    return da.map_blocks(lambda block_info: one + 1e-9, chunks=chunks, dtype="f8", meta=one[:0])

"""
"""The beginning of each process."""


@dataclass(frozen=True)
class Form:
    """A form that rows may have.

    Attributes
    ----------
    opened : str
        The lines of Python that give the rows, as ``data``.
    write : callable or None
        Writes them in a directory, from pieces, first.
    held : bool
        Whether all are in memory.
    needs : str
        The library it takes.
    """

    opened: str
    write: Callable[[Path, int], None] | None = None
    held: bool = False
    needs: str = "numpy"


@cache
def piece() -> NDArray[np.float64]:
    """Rows, which are repeated: what is in them does not matter here."""
    return np.random.default_rng(0).normal(size=(PIECE, DIMS)) + 6 * (np.arange(PIECE) % 2)[:, None]


def starts(rows: int) -> range:
    """Where pieces begin."""
    return range(0, rows, PIECE)


def npy(at: Path, rows: int) -> None:
    """A file of NumPy."""
    array = np.lib.format.open_memmap(at / "x.npy", "w+", np.float64, (rows, DIMS))
    for start in starts(rows):
        array[start : start + PIECE] = piece()


def npz(at: Path, rows: int) -> None:
    """An archive that is not compressed."""
    npy(at, rows)
    np.savez(at / "x.npz", x=np.load(at / "x.npy", mmap_mode="r"))
    (at / "x.npy").unlink()


def stored(at: Path, rows: int) -> None:
    """A Zarr array."""
    import zarr

    array = zarr.create_array(at / "x.zarr", shape=(rows, DIMS), chunks=(PIECE, DIMS), dtype="f8")
    for start in starts(rows):
        array[start : start + PIECE] = piece()


def group(at: Path, rows: int) -> None:
    """A Zarr group, an array a feature."""
    import zarr

    made = zarr.create_group(at / "x.zarr")
    for j, name in enumerate(NAMES):
        array = made.create_array(name, shape=(rows,), chunks=(2 * PIECE,), dtype="f8")
        array[:] = np.tile(piece()[:, j], rows // PIECE)


def tables(rows: int) -> Iterator[Any]:
    """Tables of Arrow, a piece each."""
    import pyarrow

    for _ in starts(rows):
        yield pyarrow.table(dict(zip(NAMES, piece().T.copy(), strict=True)))


def parquet(at: Path, rows: int) -> None:
    """Row groups of 100,000 rows, of 9 MiB."""
    import pyarrow
    import pyarrow.parquet

    schema = next(tables(1)).schema
    with pyarrow.parquet.ParquetWriter(at / "x.parquet", schema) as file:
        for _ in range(0, rows, GROUP):
            file.write_table(pyarrow.concat_tables(tables(GROUP)), GROUP)


def arrow(at: Path, rows: int) -> None:
    """A record batch a piece."""
    import pyarrow

    schema = next(tables(1)).schema
    path = str(at / "x.arrow")
    with pyarrow.OSFile(path, "wb") as file, pyarrow.ipc.new_file(file, schema) as writer:
        for table in tables(rows):
            writer.write_table(table)


def text(at: Path, rows: int) -> None:
    """Lines of text."""
    import io

    import pyarrow.csv

    held = io.BytesIO()
    pyarrow.csv.write_csv(next(tables(1)), held, pyarrow.csv.WriteOptions(include_header=False))
    with open(at / "x.csv", "wb") as file:
        file.write(",".join(NAMES).encode() + b"\n")
        for _ in starts(rows):
            file.write(held.getvalue())


def hdf(at: Path, rows: int) -> None:
    """A dataset in chunks."""
    import h5py

    with h5py.File(at / "x.h5", "w") as file:
        array = file.create_dataset("x", (rows, DIMS), "f8", chunks=(10_000, DIMS))
        for start in starts(rows):
            array[start : start + PIECE] = piece()


def netcdf(at: Path, rows: int) -> None:
    """A variable a feature, on three axes."""
    import h5netcdf

    with h5netcdf.File(at / "x.nc", "w") as file:
        file.dimensions = {"time": rows // PIECE, "y": 200, "x": PIECE // 200}
        for j, name in enumerate(NAMES):
            array = file.create_variable(
                name, ("time", "y", "x"), "f8", chunks=(1, 200, PIECE // 200)
            )
            for step in range(rows // PIECE):
                array[step] = piece()[:, j].reshape(200, -1)


def geotiff(at: Path, rows: int) -> None:
    """A band a feature, compressed."""
    import rasterio
    from rasterio.windows import Window

    width = 1_000
    how = {"driver": "GTiff", "dtype": "float64", "count": DIMS, "compress": "deflate"}
    with rasterio.open(at / "x.tif", "w", width=width, height=rows // width, **how) as file:
        for start in starts(rows):
            lines = piece().T.reshape(DIMS, -1, width)
            file.write(lines, window=Window(0, start // width, width, PIECE // width))


def icechunk(at: Path, rows: int) -> None:
    """A Zarr array in a repository of Icechunk."""
    import icechunk as library
    import zarr

    repository = library.Repository.create(library.local_filesystem_storage(str(at / "x.ice")))
    session = repository.writable_session("main")
    array = zarr.create_array(
        session.store, name="x", shape=(rows, DIMS), chunks=(PIECE, DIMS), dtype="f8"
    )
    for start in starts(rows):
        array[start : start + PIECE] = piece()
    session.commit("rows")


OF_PANDAS = "import pandas\ndata = pandas.DataFrame(columns(), copy=False)"
XARRAY = "import xarray\ndata = xarray."

FORMS: dict[str, Form] = {
    ".npy": Form("data = place + '/x.npy'", npy),
    ".npz": Form("data = place + '/x.npz::x'", npz),
    "Zarr": Form("data = place + '/x.zarr'", stored),
    "zarr.Array": Form("import zarr\ndata = zarr.open_array(place + '/x.zarr')", stored),
    "Zarr, variables": Form(
        "from dgmm import open_dataset\ndata = open_dataset(place + '/x.zarr', columns=names)",
        group,
    ),
    "Parquet": Form("data = place + '/x.parquet'", parquet, needs="pyarrow"),
    "Arrow": Form("data = place + '/x.arrow'", arrow, needs="pyarrow"),
    "CSV": Form("data = place + '/x.csv'", text, needs="pyarrow"),
    "HDF5, NetCDF": Form("data = place + '/x.h5::x'", hdf, needs="h5py"),
    "h5py.Dataset": Form("import h5py\ndata = h5py.File(place + '/x.h5')['x']", hdf, needs="h5py"),
    "HDF5, NetCDF, variables": Form(
        "from dgmm import open_dataset\ndata = open_dataset(place + '/x.nc', columns=names)",
        netcdf,
        needs="h5netcdf",
    ),
    "GeoTIFF": Form("data = place + '/x.tif'", geotiff, needs="rasterio"),
    "Icechunk": Form(
        "import icechunk, zarr\n"
        "at = icechunk.local_filesystem_storage(place + '/x.ice')\n"
        "store = icechunk.Repository.open(at).readonly_session('main').store\n"
        "data = zarr.open_array(store, path='x', mode='r')",
        icechunk,
        needs="icechunk",
    ),
    "dask.array": Form("data = lazy()"),
    "dask.dataframe": Form(
        "import dask.dataframe\ndata = dask.dataframe.from_dask_array(lazy(), columns=names)",
        needs="pandas",
    ),
    "DataArray, lazy": Form(
        f"{XARRAY}DataArray(lazy(), dims=('row', 'feature'), coords={{'feature': names}})",
        needs="xarray",
    ),
    "xarray.Dataset of NetCDF, lazy": Form(
        f"{XARRAY}open_dataset(place + '/x.nc', chunks={{}}, engine='h5netcdf')",
        netcdf,
        needs="h5netcdf",
    ),
    "NumPy": Form("data = whole()", held=True),
    "pandas": Form(OF_PANDAS, held=True, needs="pandas"),
    "polars": Form("import polars\ndata = polars.DataFrame(columns())", held=True, needs="polars"),
    "pyarrow.Table": Form(
        "import pyarrow\ndata = pyarrow.table(columns())", held=True, needs="pyarrow"
    ),
    "DataArray": Form(
        f"{XARRAY}DataArray(whole(), dims=('row', 'feature'))", held=True, needs="xarray"
    ),
    "xarray.Dataset": Form(
        f"{XARRAY}Dataset({{name: ('row', each) for name, each in columns().items()}})",
        held=True,
        needs="xarray",
    ),
}


def line(name: str, form: Form, place: Path, rows: int, memory: str) -> list[Cell]:
    """The table's line of a form."""
    if find_spec(form.needs) is None:
        return [name, memory, None, None, f"{form.needs} is not installed"]
    say(f"holding: {name}")
    place.mkdir()
    if form.write is not None:
        form.write(place, rows)
    own = rows * DIMS * 8 * form.held
    how = f"GaussianMixture(2, random_state=0, memory={memory!r})"
    code = (
        f"{FIT}{form.opened}\nmodel = {how}.fit(data)\nprint(json.dumps(model.fit_info_['rows']))"
    )
    try:
        done = process.measured([sys.executable, "-c", code, name, str(place), str(rows), memory])
    except RuntimeError as error:
        told = [line for line in str(error).splitlines() if "Error: " in line]
        return [name, memory, None, None, told[-1] if told else "failed"]
    finally:
        shutil.rmtree(place)
    assert json.loads(done.output.splitlines()[-1]) == rows
    peak = mebibytes(done.peak_bytes)
    return [name, memory, peak, mebibytes(done.peak_bytes - own) if own else None, ""]


@click.command()
@click.option("--rows", type=int, help="[default: 10000000; quick: 1000000]")
@click.option("--memory", default="600MiB", show_default=True, help="What the fit is allowed.")
@click.option("--form", "names", multiple=True, type=click.Choice(list(FORMS)), help="Or all.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where the files go.")
@click.option("--quick", is_flag=True, help="A tenth of the rows.")
def holding(
    rows: int | None, memory: str, names: tuple[str, ...], directory: Path | None, quick: bool
) -> None:
    """Peak memory of a fit by the form that its rows come in.

    Example: python -m benchmarks holding --form Parquet --form GeoTIFF
    """
    count = rows or (1_000_000 if quick else 10_000_000)
    chosen = {name: FORMS[name] for name in names or FORMS}
    with tempfile.TemporaryDirectory(dir=directory) as at:
        show(
            f"A fit to {count:,} x {DIMS}, {mebibytes(count * DIMS * 8)}",
            ["rows in", "allowed", "measured", "beside the rows", ""],
            (line(name, form, Path(at) / "one", count, memory) for name, form in chosen.items()),
            NOTE,
        )
