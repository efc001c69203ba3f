"""HDF5 and NetCDF-4 files: a dataset by ``file.h5::/group/name``, or several as features.

A file is opened for each read: what h5py has open can't go to another process, or through a fork.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.data.auxiliary import NAMING, Variable, auxiliary, features
from dgmm.data.columns import chosen, one
from dgmm.data.memory import memory
from dgmm.data.packed import ATTRIBUTES, unpacked
from dgmm.data.source import Grid, Source
from dgmm.data.transient import is_transient
from dgmm.data.urls import absolute, exists, is_local, place
from dgmm.data.variables import VariablesSource
from dgmm.errors import DataError, DgmmError, UsageError
from dgmm.model.extras import require
from dgmm.model.lazy import Late

h5py = Late("h5py")

ENDINGS: Final = (".h5", ".hdf5", ".he5", ".hdf", ".nc", ".nc4")


class HdfSource(Source):
    """A dataset in a file."""

    copies = 3  # the result, a chunk and a compressed one

    def __init__(self, url: str, path: str, dataset: Any) -> None:
        self.name, self._url, self._path = f"{url}::{path}", absolute(url), path
        self.shape, self.dtype = dataset.shape, dataset.dtype
        self.paths = (place(url)[1],)
        self._unit = dataset.chunks[0] if dataset.chunks else 1

    def divisions(self, block_bytes: int) -> NDArray[np.int64]:
        return self._even_cuts(self._unit, block_bytes)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        try:
            with opened(self._url) as file:
                dataset = file[self._path]
                if dataset.shape != self.shape:
                    raise DataError(
                        f"{self.name} has changed since it was opened: its shape is "
                        f"{dataset.shape}, not {self.shape}"
                    )
                rows = _rows(dataset, start, stop)
        except DgmmError:
            raise
        except (OSError, KeyError) as error:
            if is_transient(error):
                raise
            raise DataError(f"{self.name} can't be read: {error}") from error
        return rows


def _rows(dataset: Any, start: int, stop: int) -> NDArray[Any]:
    """Rows of a dataset, in memory that was a block's before, where its numbers allow that."""
    if dataset.dtype.kind not in "iuf" or not dataset.dtype.isnative or start == stop:
        taken: NDArray[Any] = dataset[start:stop]
        return taken
    rows = memory.array((stop - start, *dataset.shape[1:]), dataset.dtype)
    if rows.size:
        dataset.read_direct(rows, np.s_[start:stop])
    return rows


@contextmanager
def opened(url: str) -> Iterator[Any]:
    """The file at ``url``, while inside."""
    filesystem, path = place(url)
    if is_local(filesystem):
        with _file(path) as file:
            yield file
        return
    with filesystem.open(path, "rb") as remote, h5py.File(remote, "r") as file:
        yield file


def _file(path: str) -> Any:
    """The local file at ``path``, not locked, so that others may lock it as they like."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        return h5py.File(path, "r")  # as whoever has it open in this process: HDF5 insists on that


def is_hdf(url: str) -> bool:
    """Whether a file is meant by ``url``, and no dataset in it."""
    return url.lower().endswith(ENDINGS)


def open_hdf(url: str, columns: Sequence[str] | None, raw: bool) -> Source | None:
    """The dataset that ``url`` names, or ``columns`` of its file; None if it is no such file."""
    where, colons, path = url.partition("::") if "://" not in url else _parted(url)
    if not is_hdf(where):
        return None
    require("hdf5", f"{url}: an HDF5 or NetCDF file", "h5py")
    if not exists(where):
        raise DataError(f"{where} does not exist")
    try:
        with opened(where) as file:
            return _chosen(file, where, path if colons else None, columns, raw)
    except DgmmError:
        raise
    except Exception as error:  # each file system has errors of its own
        if is_transient(error):
            raise
        hint = _hint(where)
        raise DataError(
            f"{where} can't be read as an HDF5 or NetCDF-4 file: {hint or error}"
        ) from error


def _hint(url: str) -> str:
    """What a file is that can't be read, if that is known."""
    filesystem, path = place(url)
    with suppress(OSError), filesystem.open(path, "rb") as file:
        if file.read(3) == b"CDF":
            return (
                "it is in NetCDF's classic format; give xarray.open_dataset(path, chunks={}) of "
                "it, or make NetCDF-4 of it (nccopy -k nc4)"
            )
    return ""


def _parted(url: str) -> tuple[str, str, str]:
    """The file and the dataset of a URL, in which fsspec's protocols may be chained."""
    where, colons, path = url.rpartition("::")
    return (where, colons, path) if is_hdf(where) else (url, "", "")


def _chosen(
    file: Any, url: str, path: str | None, columns: Sequence[str] | None, raw: bool
) -> Source:
    datasets = _datasets(file)
    if path is not None:
        if columns is not None:
            raise UsageError(f"{url}::{path} names its dataset: leave out columns={list(columns)}")
        name = one(f"{url}::{path}", chosen(list(datasets), [path.strip("/")], url))
        return _values(datasets, url, name, raw)
    variables = {name: _variable(each) for name, each in datasets.items()}
    whole = _naming(file)
    if columns is None:
        others = auxiliary(variables, whole)
        # What is most often meant comes first.
        names = sorted(datasets, key=others.__contains__)
        listed = ", ".join(f"{url}::{name}" for name in names[:10])
        raise DataError(
            f"{url} has {len(datasets)} datasets; name one: {listed}; or say which of them are the "
            "features, a value of each a row, by open_dataset(path, columns=[...]) (--columns)"
        )
    parts = features(variables, columns, url, whole)
    source = VariablesSource(url, parts, [_values(datasets, url, name, raw) for name in parts])
    source.grid = Grid(url, parts[0], datasets[parts[0]].shape)
    return source


def _variable(dataset: Any) -> Variable:
    return Variable(dataset.shape, _naming(dataset), dataset.is_scale)


def _naming(node: Any) -> dict[str, Any]:
    """The attributes of a node that name variables; others may be of types that h5py lacks."""
    return {each: node.attrs[each] for each in NAMING if each in node.attrs}


def _datasets(file: Any) -> dict[str, Any]:
    """All datasets of a file, by their paths in it."""
    datasets: dict[str, Any] = {}

    def note(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.shape is not None:  # which has values
            datasets[name] = node

    file.visititems(note)
    return datasets


def _values(datasets: dict[str, Any], url: str, name: str, raw: bool) -> Source:
    return unpacked(HdfSource(url, name, datasets[name]), said_of(datasets[name]), raw)


def said_of(dataset: Any) -> dict[str, Any]:
    """The attributes of a dataset that say what its numbers stand for."""
    # Others may be of types that only HDF5 has.
    return {each: _text(dataset.attrs[each]) for each in ATTRIBUTES if each in dataset.attrs}


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
