"""Odd forms of rows and weights: read right, or refused by name before anything is loaded."""

import asyncio
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow
import pytest
import scipy.sparse
import xarray as xr
import zarr
from conftest import QUIET
from distributed import Client
from sklearn.exceptions import ConvergenceWarning

from dgmm import (
    ClusterError,
    DataError,
    GaussianMixture,
    MixtureSearch,
    PlanError,
    UsageError,
    load,
    open_dataset,
)

RNG = np.random.default_rng(5)
ROWS = RNG.normal((0, 10, 100), size=(60, 3))
WEIGHTS = RNG.uniform(0.5, 2.0, size=60)
NAMES = ["a", "b", "c"]
MODEL = GaussianMixture(2, random_state=0).fit(ROWS)


def read(data: Any, sample_weight: Any = None) -> np.ndarray:
    """All rows of ``data``, or all weights if they are given."""
    dataset = open_dataset(data, sample_weight)
    found = [dataset.block(index) for index in range(dataset.blocks)]
    return np.concatenate([b.rows if sample_weight is None else b.weights for b in found])


# What is masked is missing, however it comes; but for lists, which are refused.


def masked(rows: np.ndarray) -> np.ma.MaskedArray:
    return np.ma.masked_less(rows, np.quantile(rows, 0.1, axis=0))


MASKED: dict[str, Callable[[np.ndarray], Any]] = {
    "array": masked,
    "Dask": lambda rows: da.from_array(masked(rows), chunks=20),
    "Dask, by da.ma": lambda rows: da.ma.masked_less(da.from_array(rows, chunks=20), 1.0),
    "Dask, of unknown sizes": lambda rows: da.ma.masked_less(
        da.from_array(rows, chunks=20)[da.ones(60, chunks=20) > 0], 1.0
    ),
    "Dask, undeclared": lambda rows: da.from_array(rows, chunks=20).map_blocks(
        masked, meta=rows[:0]
    ),
    "Dask, one chunk undeclared": lambda rows: da.concatenate(
        [da.from_array(rows[:30]), da.from_array(rows[30:]).map_blocks(masked, meta=rows[:0])]
    ),
    "Dask, undeclared lists": lambda rows: da.from_array(rows, chunks=20).map_blocks(
        lambda chunk: list(masked(chunk)), dtype="f8", meta=rows[:0]
    ),
    "list": lambda rows: list(masked(rows)),
    "tuple": lambda rows: tuple(masked(rows)),
    "list with a masked number": lambda rows: (
        [*rows[:-1].tolist(), masked(rows)[rows.argmin()]]
        if rows.ndim == 1
        else [*rows[:-1].tolist(), [1.0, 2.0, np.ma.masked]]
    ),
}


LISTS = [form for form in MASKED if "list" in form or form == "tuple"]


@pytest.mark.parametrize("form", [form for form in MASKED if form not in LISTS])
def test_what_is_masked_is_missing(form: str) -> None:
    """As NaN is: an error by default, else judged by what was observed, or left out."""
    rows = MASKED[form](ROWS)
    filled = np.ma.filled(masked(ROWS), np.nan)
    if form in ("Dask, by da.ma", "Dask, of unknown sizes"):
        filled = np.where(ROWS < 1.0, np.nan, ROWS)
    elif "undeclared" in form or form == "Dask":
        filled = np.asarray(np.ma.filled(rows.compute(), np.nan))
    with pytest.raises(DataError, match=r'NaN .*missing="marginalize" .*missing="drop"'):
        GaussianMixture().fit(rows)
    for missing in ("marginalize", "drop"):
        models = [
            GaussianMixture(missing=missing, random_state=0, max_iter=5, strategy="em")
            for _ in range(2)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            first, second = models[0].fit(rows), models[1].fit(filled)
        # Other blocks add in another order, from starts that are rounded so, too.
        np.testing.assert_allclose(first.means_, second.means_, rtol=1e-6)
        np.testing.assert_allclose(first.score(rows), second.score(filled), rtol=1e-6)


def test_integers_may_be_masked() -> None:
    rows = np.ma.array([[1, 2], [3, 4], [5, 7], [6, 0]], mask=[[0, 0], [0, 1], [0, 0], [0, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianMixture(missing="marginalize", reg_covar=0.1).fit(rows)
    assert model.fit_info_["incomplete"] == 1
    np.testing.assert_allclose(model.means_[0, 0], 3.75)


@pytest.mark.parametrize("form", LISTS)
def test_lists_of_masked_rows_are_refused(form: str) -> None:
    make = MASKED[form]
    with pytest.raises(DataError, match=r"[Mm]asked"):
        GaussianMixture().fit(make(ROWS))
    with pytest.raises(DataError, match=r"[Mm]asked"):
        np.asarray(MODEL.predict(make(ROWS)))


@pytest.mark.parametrize("form", MASKED)
def test_weights_may_not_be_masked(form: str) -> None:
    with pytest.raises(DataError, match=r"[Mm]asked|weights must be finite and not negative: nan"):
        GaussianMixture().fit(ROWS, sample_weight=MASKED[form](WEIGHTS))


def test_rows_that_were_masked_and_filled_are_read_so() -> None:
    filled = da.ma.filled(da.ma.masked_less(da.from_array(ROWS, chunks=20), 0.0), -7.0)

    np.testing.assert_array_equal(read(filled), np.where(ROWS < 0, -7.0, ROWS))


# Chunks that are not what was declared.


def lying(change: Callable[[np.ndarray], Any], of: np.ndarray = ROWS, at: int = 1) -> da.Array:
    """Rows in chunks of 20, of which one is not what the array says."""

    def lie(chunk: np.ndarray, block_info: Any = None) -> Any:
        return change(chunk) if block_info[0]["chunk-location"][0] == at else chunk

    given = da.from_array(of, chunks=(20, *of.shape[1:]))
    return given.map_blocks(lie, dtype=of.dtype, meta=of[:0])


LIES: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "narrower": (lambda c: c[:, :2], r"numpy\.ndarray of shape \(20, 2\)"),
    "wider": (lambda c: np.hstack([c, c]), r"numpy\.ndarray of shape \(20, 6\)"),
    "longer": (lambda c: np.vstack([c, c]), r"numpy\.ndarray of shape \(40, 3\)"),
    "shorter": (lambda c: c[:5], r"numpy\.ndarray of shape \(5, 3\)"),
    "one row, that would broadcast": (lambda c: c[:1], r"numpy\.ndarray of shape \(1, 3\)"),
    "empty": (lambda c: c[:0], r"numpy\.ndarray of shape \(0, 3\)"),
    "1-D": (lambda c: c[:, 0], r"numpy\.ndarray of shape \(20,\)"),
    "sparse": (scipy.sparse.csr_array, r"csr_array of shape \(20, 3\)"),
    "objects": (lambda c: c.astype(object), r"shape \(20, 3\) and dtype object"),
    "complex": (lambda c: c + 1j, r"shape \(20, 3\) and dtype complex128"),
    "text": (lambda c: c.astype("U8"), r"shape \(20, 3\) and dtype <U8"),
    "dates": (lambda c: c.astype("M8[s]"), r"shape \(20, 3\) and dtype datetime64\[s\]"),
    "a frame with pd.NA": (
        lambda c: pd.DataFrame({"a": c[:, 0], "b": pd.array([pd.NA] * 20), "c": 0}),
        r"DataFrame of shape \(20, 3\) and dtype object",
    ),
    "nothing": (lambda c: None, r"NoneType"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_chunk_that_is_not_what_was_declared_is_named(lie: str) -> None:
    change, found = LIES[lie]
    message = (
        rf"chunk \(1, 0\) of the Dask array \S+ \(rows 20 to 40, columns 0 to 3\) is a .*{found}.*"
        r"numpy\.ndarray of shape \(20, 3\) and dtype float64 was declared"
    )
    with pytest.raises(DataError, match=message):
        GaussianMixture().fit(lying(change))
    with pytest.raises(DataError, match=message):
        MODEL.score(lying(change))
    for lazy in (MODEL.predict, MODEL.predict_proba, MODEL.score_samples):
        with pytest.raises(DataError, match=message):
            lazy(lying(change)).compute()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda c: c[:5], r"shape \(5,\)"),
        (lambda c: np.append(c, c), r"shape \(40,\)"),
        (lambda c: c[:1], r"shape \(1,\)"),
        (lambda c: c[:, None], r"shape \(20, 1\)"),
        (lambda c: c + 0j, r"dtype complex128"),
        (lambda c: c.astype(object), r"dtype object"),
    ],
    ids=["shorter", "longer", "one", "2-D", "complex", "objects"],
)
@pytest.mark.parametrize("rows", [ROWS, da.from_array(ROWS, chunks=(13, 3))], ids=["numpy", "dask"])
def test_a_chunk_of_weights_that_is_not_what_was_declared_is_named(
    rows: Any, change: Callable[[np.ndarray], Any], found: str
) -> None:
    """Also where weights are cut anew, to go with the rows."""
    message = rf"chunk \(1,\) of the Dask array \S+ \(rows 20 to 40\) is a .*{found}.*\(20,\)"

    with pytest.raises(DataError, match=message):
        GaussianMixture().fit(rows, sample_weight=lying(change, WEIGHTS))
    with pytest.raises(DataError, match=message):
        MODEL.score(rows, sample_weight=lying(change, WEIGHTS))


def test_column_chunks_that_are_not_what_was_declared_are_named() -> None:
    """Before they are put together: a chunk too wide beside one too narrow makes a whole one."""
    parts = da.from_array(ROWS, chunks=(20, (1, 2)))
    swapped = parts.map_blocks(
        lambda c: np.repeat(c[:, :1], 3 - c.shape[1], axis=1), dtype="f8", meta=ROWS[:0]
    )
    assert swapped.rechunk({1: -1}).compute().shape == ROWS.shape
    with pytest.raises(DataError, match=r"\(20, 1\).*where a numpy.ndarray of shape \(20, 2\)"):
        GaussianMixture().fit(swapped)


def test_chunks_of_unknown_sizes_must_be_as_wide_as_declared_and_stay_as_they_were() -> None:
    marks = da.ones(60, chunks=20) > 0
    with pytest.raises(DataError, match=r"chunks of \(2,\) where \(3,\) are declared"):
        GaussianMixture().fit(
            da.from_array(ROWS, chunks=(20, 3))[marks].map_blocks(
                lambda c: c[:, :2], dtype="f8", meta=ROWS[:0]
            )
        )
    calls = []

    def shrinking(chunk: np.ndarray) -> np.ndarray:
        calls.append(len(chunk))
        return chunk[: 20 - (len(calls) > 3)]

    lazy = da.from_array(ROWS, chunks=(20, 3))[marks].map_blocks(
        shrinking, dtype="f8", meta=ROWS[:0]
    )
    with pytest.raises(DataError, match=r"shape \(19, 3\).*shape \(20, 3\)"):
        GaussianMixture().fit(lazy)


def uncountable(chunk: np.ndarray) -> np.ndarray:
    raise AssertionError("counted")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS.astype(object), r"real numbers.*dtype object"),
        (ROWS + 1j, "Complex data not supported"),
        (ROWS[:, :, None], "rows must be 2-D"),
    ],
    ids=["objects", "complex", "3-D"],
)
def test_what_can_not_be_rows_is_told_before_it_is_counted(rows: Any, message: str) -> None:
    unknown = da.from_array(rows, chunks=20)[da.ones(60, chunks=20) > 0]
    lazy = unknown.map_blocks(uncountable, dtype=rows.dtype, meta=rows[:0])
    with pytest.raises(DataError, match=message):
        open_dataset(lazy)


def test_rows_that_can_not_be_counted_are_named() -> None:
    def fail(chunk: np.ndarray) -> np.ndarray:
        raise OSError("the disk is gone")

    marks = da.ones(60, chunks=20) > 0
    lazy = da.from_array(ROWS, chunks=(20, 3)).map_blocks(fail, meta=ROWS[:0])[marks]
    with pytest.raises(DataError, match=r"could not be counted: OSError: the disk is gone"):
        open_dataset(lazy)
    frame = dd.from_pandas(pd.DataFrame(ROWS), npartitions=2).map_partitions(
        fail, meta=pd.DataFrame(ROWS[:0])
    )
    with pytest.raises(DataError, match=r"DataFrame could not be counted: OSError: the disk is"):
        open_dataset(frame)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.astype("f4"),
        lambda c: c.round().astype("i4"),
        np.asfortranarray,
        np.asmatrix,
        pd.DataFrame,
        np.ndarray.tolist,
    ],
    ids=["float32", "integers", "fortran", "matrix", "frame", "list"],
)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_chunks_of_the_same_numbers_in_another_way_are_read(change: Callable[[Any], Any]) -> None:
    expected = ROWS.copy()
    expected[20:40] = np.asarray(change(ROWS[20:40]))

    np.testing.assert_array_equal(read(lying(change)), expected)
    np.testing.assert_array_equal(MODEL.predict(lying(change)), MODEL.predict(expected))


def test_chunks_are_held_to_what_was_declared_on_a_cluster(
    clusters: Mapping[int, Client],
) -> None:
    with clusters[1].as_current():
        for change, found in (LIES["narrower"], LIES["longer"], LIES["complex"]):
            with pytest.raises(DataError, match=rf"chunk \(1, 0\) of the Dask array .*{found}"):
                GaussianMixture().fit(lying(change))
        with pytest.raises(DataError, match=r"chunk \(1,\) of the Dask array .*shape \(5,\)"):
            MODEL.score(ROWS_LAZY, sample_weight=lying(lambda c: c[:5], WEIGHTS))
        with pytest.raises(DataError, match=r'NaN .*missing="marginalize"'):
            MODEL.score(MASKED["Dask, undeclared"](ROWS))
        with pytest.raises(DataError, match=r"chunk \(1, 0\) of the Dask array .*shape \(20, 2\)"):
            MODEL.predict(lying(LIES["narrower"][0])).compute()


ROWS_LAZY = da.from_array(ROWS, chunks=(20, 3))


# Lazy frames.


def dask_frame(names: list[str] = NAMES) -> Any:
    return dd.from_pandas(pd.DataFrame(ROWS, columns=names), npartitions=3)


def data_array(names: list[str] = NAMES) -> Any:
    return xr.DataArray(ROWS_LAZY, dims=("row", "feature"), coords={"feature": names})


def dask_array(answer: Any) -> da.Array:
    """What is said of the rows of a lazy frame: of xarray for xarray."""
    array = answer.data if isinstance(answer, xr.DataArray) else answer
    assert isinstance(array, da.Array)
    return array


LAZY_FRAMES = {"dask.dataframe": dask_frame, "xarray": data_array}


@pytest.mark.parametrize("form", LAZY_FRAMES)
def test_a_lazy_frame_is_fitted_lazily_and_its_names_are_kept(form: str, tmp_path: Path) -> None:
    frame = LAZY_FRAMES[form]()
    model = GaussianMixture(2, random_state=0).fit(frame)

    assert (
        model.means_.tobytes() == GaussianMixture(2, random_state=0).fit(ROWS_LAZY).means_.tobytes()
    )
    assert model.feature_names_in_.tolist() == NAMES
    for answer in ("predict", "predict_proba", "score_samples"):
        lazy = dask_array(getattr(model, answer)(frame))
        assert lazy.chunks[0] == (20, 20, 20)
        np.testing.assert_array_equal(
            lazy, getattr(model, answer)(pd.DataFrame(ROWS, columns=NAMES))
        )
    in_memory = model.score(pd.DataFrame(ROWS, columns=NAMES))
    assert model.score(frame) == pytest.approx(in_memory, rel=1e-14)  # in other blocks

    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(LAZY_FRAMES[form](["a", "c", "b"]))
    model.save(tmp_path / "model.dgmm")
    assert load(tmp_path / "model.dgmm").feature_names_in_.tolist() == NAMES


@pytest.mark.parametrize("form", LAZY_FRAMES)
def test_a_search_keeps_the_names_of_a_lazy_frame(form: str) -> None:
    search = MixtureSearch(GaussianMixture(random_state=0), n_components=[1, 2])
    search.fit(LAZY_FRAMES[form]())

    assert search.best_estimator_.feature_names_in_.tolist() == NAMES
    assert dask_array(search.predict(LAZY_FRAMES[form]())).shape == (60,)


def test_weights_come_in_lazy_frames_too() -> None:
    series = dd.from_pandas(pd.DataFrame({"w": WEIGHTS}), npartitions=4)["w"]
    for weights in (
        series,
        xr.DataArray(da.from_array(WEIGHTS, chunks=7)),
        xr.DataArray(WEIGHTS),
        pd.Series(WEIGHTS),
        pd.Series(WEIGHTS, dtype="Float64"),
        pyarrow.array(WEIGHTS),
        WEIGHTS.tolist(),
    ):
        np.testing.assert_array_equal(read(ROWS, weights), WEIGHTS)
        np.testing.assert_array_equal(read(ROWS_LAZY, weights), WEIGHTS)


def test_frames_in_memory_answer_in_memory() -> None:
    frame = xr.DataArray(ROWS, dims=("row", "feature"), coords={"feature": NAMES})
    model = GaussianMixture(2, random_state=0).fit(frame)

    assert model.feature_names_in_.tolist() == NAMES
    assert isinstance(model.predict(frame).data, np.ndarray)
    np.testing.assert_array_equal(read(frame), ROWS)


def test_partitions_must_have_their_columns_in_the_order_declared() -> None:
    """Dask itself would take values of one column for another's."""

    def part(index: int) -> pd.DataFrame:
        rows = pd.DataFrame(ROWS[20 * index : 20 * index + 20], columns=NAMES)
        return rows[["b", "a", "c"]] if index == 1 else rows

    frame = dd.from_map(part, range(3), meta=part(0)[:0], enforce_metadata=False)
    assert frame.to_dask_array(lengths=True).compute()[20:40, 0].min() > 5
    with pytest.raises(DataError, match=r"(?s)rows 20 to 40.*Order of columns does not match"):
        GaussianMixture().fit(frame)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # Dask's, with the newest pandas
def test_a_parquet_file_is_fitted_without_being_loaded_whole(tmp_path: Path) -> None:
    dask_frame().to_parquet(tmp_path / "rows.parquet")
    frame = dd.read_parquet(tmp_path / "rows.parquet")

    np.testing.assert_array_equal(read(frame), ROWS)
    assert isinstance(MODEL.predict(frame[NAMES].to_dask_array()), da.Array)


# What would have to be loaded whole.


class Huge:
    """An array-like of 8 TB that must not be loaded."""

    shape, dtype, ndim = (10**9, 1000), np.dtype("f8"), 2

    def __len__(self) -> int:
        return len(range(*self.shape[:1]))

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise AssertionError("loaded")


def test_what_is_larger_than_allowed_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"the Huge would have to be loaded whole, 7\.28 TiB"):
        GaussianMixture().fit(Huge())
    with pytest.raises(PlanError, match="Huge"):
        GaussianMixture().fit(ROWS, sample_weight=Huge())
    for answer in (MODEL.predict, MODEL.score, open_dataset):
        with pytest.raises(PlanError, match="Huge"):
            answer(Huge())


def test_what_is_read_block_by_block_or_is_in_memory_may_have_any_size(tmp_path: Path) -> None:
    huge = zarr.create_array(
        tmp_path / "huge.zarr", shape=(10**9, 1000), chunks=(10**8, 1000), dtype="f8"
    )
    for given in (huge, da.zeros((10**9, 1000), chunks=(10**8, 1000))):
        assert open_dataset(given, missing_chunks="fill", memory="1MB").rows == 10**9
        assert isinstance(
            GaussianMixture().plan(open_dataset(given, missing_chunks="fill")).rows, int
        )
    lazy = xr.DataArray(da.zeros((10**9, 3), chunks=(10**8, 3)))
    assert dask_array(MODEL.predict(lazy)).shape == (10**9,)
    for given in (ROWS, pd.DataFrame(ROWS), xr.DataArray(ROWS), ROWS.tolist()):
        np.testing.assert_array_equal(read(open_dataset(given, memory="1MB")), ROWS)


# What is no array of rows, and what looks like one.


def future(client: Client) -> Any:
    return client.submit(lambda: ROWS)


NO_ROWS: dict[str, tuple[Any, str]] = {
    "Delayed": (dask.delayed(ROWS), r"a Delayed is no array of rows.*da.*from_delayed"),
    "called": (dask.delayed(np.ones)((3, 2)), r"a Delayed is no array of rows.*from_delayed"),
    "Bag": (dask.bag.from_sequence([1, 2]), r"a Dask Bag is no array of rows"),
    "list of Dask arrays": ([*ROWS_LAZY[:2]], r"a list of lazy arrays.*dask\.array\.stack"),
    "list of Delayed": ([dask.delayed(ROWS[0])] * 5, r"a Delayed is no array of rows"),
    "xarray Dataset": (
        xr.Dataset({"a": ("n", ["x"])}),
        r"a of the Dataset has dtype .*no array of real",
    ),
    "generator": ((row for row in ROWS), r"a generator is no array of numbers"),
    "dict": ({"a": [1.0, 2.0]}, r"a dict is no array of numbers"),
    "0-D": (np.array(3.0), r"2-D, \(rows, features\).*has shape \(\)"),
    "list of tables": ([ROWS, ROWS], r"2-D.*has shape \(2, 60, 3\)"),
    "Dask frame of texts": (
        dd.from_pandas(pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}), npartitions=1),
        r"columns must be real numbers: b \(\S+\) of a Dask DataFrame",
    ),
    "Dask series of dates": (
        dd.from_pandas(pd.Series(pd.date_range("2020", periods=60), name="t"), npartitions=1),
        r"columns must be real numbers: t \(datetime64.*\) of a Dask Series",
    ),
    "pd.NA in a list": ([[1.0, pd.NA], [2.0, 3.0]], r"real numbers.*dtype object"),
    "Dask array of sparse chunks": (
        ROWS_LAZY.map_blocks(scipy.sparse.csr_array),
        r"has chunks of scipy\.sparse\.\S+csr_array, which are not supported",
    ),
    "ragged list": ([[1.0, 2.0], [3.0]], r"a list is no array of numbers: .*inhomogeneous"),
}


@pytest.mark.parametrize("form", NO_ROWS)
def test_what_is_no_array_of_rows_is_refused_by_name(form: str) -> None:
    given, message = NO_ROWS[form]
    with pytest.raises(DataError, match=message):
        open_dataset(given)
    with pytest.raises(DataError):
        open_dataset(ROWS, given)
    with pytest.raises((ValueError, TypeError)):
        GaussianMixture().fit(given)


def test_nullable_columns_are_read_and_what_they_lack_is_named() -> None:
    """As scikit-learn reads them."""
    frame = pd.DataFrame(ROWS, columns=NAMES).astype("Float64")
    model = GaussianMixture(2, random_state=0).fit(frame)
    assert model.means_.tobytes() == MODEL.means_.tobytes()

    lazy = dd.from_pandas(frame, npartitions=3)
    np.testing.assert_array_equal(read(lazy), ROWS)
    np.testing.assert_array_equal(read(ROWS, lazy["a"] + 9), ROWS[:, 0] + 9)

    frame.loc[[7, 9], "b"] = pd.NA
    with pytest.raises(DataError, match=r"nan at row 7, column 'b'; .*: 2 of 60"):
        model.fit(dd.from_pandas(frame, npartitions=3))
    with pytest.raises(DataError, match=r"nan at row 7, column 'b'; .*: 2 of 60"):
        model.fit(frame)
    weights = pd.Series(WEIGHTS, dtype="Float64")
    weights[3] = pd.NA
    with pytest.raises(DataError, match=r"nan at row 3; such weights: 1 of 60"):
        model.fit(ROWS, sample_weight=weights)


def test_a_list_of_arrays_is_read_as_its_rows() -> None:
    np.testing.assert_array_equal(read(list(ROWS)), ROWS)
    np.testing.assert_array_equal(read(tuple(ROWS.astype("f4"))), ROWS.astype("f4"))
    np.testing.assert_array_equal(read(ROWS, [np.float64(w) for w in WEIGHTS]), WEIGHTS)


class Mapped(np.memmap):
    """A kind of map of one's own."""


def test_a_kind_of_map_is_read_as_the_map(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r").view(Mapped)

    np.testing.assert_array_equal(read(mapped), ROWS)
    np.testing.assert_array_equal(read(mapped[10:]), ROWS[10:])
    with pytest.raises(DataError, match="NaN or infinity in the rows"):
        GaussianMixture().fit(np.ma.masked_less(mapped, 0.0))


# A Client that nobody can wait for.


def test_an_asynchronous_client_and_futures_are_refused_by_name(tmp_path: Path) -> None:
    path = str(tmp_path / "rows.zarr")
    made = zarr.create_array(path, shape=ROWS.shape, chunks=(20, 3), dtype="f8")
    made[:] = ROWS
    options: dict[str, Any] = {"n_workers": 1, "threads_per_worker": 1, **QUIET}

    async def main() -> None:
        async with Client(processes=False, asynchronous=True, **options) as client:
            future = client.submit(lambda: ROWS)
            unknown = ROWS_LAZY[ROWS_LAZY[:, 0] > 0]
            for given in (path, ROWS_LAZY, unknown, dask_frame()):
                with pytest.raises(ClusterError, match=r"Client is asynchronous.*to_thread"):
                    GaussianMixture().fit(given)
                with pytest.raises(ClusterError, match=r"Client is asynchronous.*to_thread"):
                    MODEL.score(given)
            for given in (future, [future, future]):
                with pytest.raises(DataError, match=r"a Future is no array of rows.*result\(\)"):
                    GaussianMixture().fit(given)
                with pytest.raises(DataError, match=r"a Future is no array of rows.*result\(\)"):
                    GaussianMixture().fit(ROWS, sample_weight=given)
            assert GaussianMixture().fit(ROWS).n_features_in_ == 3  # needs no cluster
            model = GaussianMixture(2, random_state=0)
            fitted = await asyncio.to_thread(model.fit, path)
            np.testing.assert_allclose(fitted.means_, MODEL.means_, rtol=1e-9)

    asyncio.run(main())


# Parameters come in odd forms, too.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ma.masked_less(ROWS[:2], 5.0), "means_init holds NaN or infinity"),
        ([*np.ma.masked_less(ROWS[:2], 5.0)], "means_init must be numbers: a list of masked"),
        (ROWS[:2] + 0j, "means_init must be real numbers, not complex128"),
        (dask.delayed(ROWS[:2]), "means_init must be numbers: a Delayed is no array"),
        ([[1, pd.NA, 2], [1, 2, 3]], "means_init must be numbers"),
    ],
    ids=["masked", "masked list", "complex", "delayed", "NA"],
)
def test_starting_values_that_would_be_misread_are_refused(values: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GaussianMixture(2, means_init=values).fit(ROWS)


@pytest.mark.parametrize("values", [np.ma.array([1.0, 2.0], mask=[0, 1]), [1.0, np.nan], [1.0]])
def test_conditions_that_would_be_misread_are_refused(values: Any) -> None:
    with pytest.raises(UsageError, match=r"features \[0, 2\] want a number each"):
        MODEL.mixture_.conditional([0, 2], values)


# What is said of rows that can't be used.


def test_rows_that_are_not_finite_are_counted_and_what_to_do_is_said() -> None:
    rows = np.tile(ROWS, (500, 1))  # two tiles, and four blocks
    rows[[40, 17000, 29999], [1, 2, 0]] = [np.nan, np.inf, -np.inf]
    rows[17000] = np.nan
    message = (
        r"NaN or infinity in the rows: nan at row 40, column 1; rows with NaN or infinity: "
        r"3 of 30,000\. If NaN is a value that is missing, missing=\"marginalize\""
    )
    for given in (rows, da.from_array(rows, chunks=(7000, 3)), open_dataset(rows, block_bytes=999)):
        with pytest.raises(DataError, match=message):
            GaussianMixture().fit(given)
        with pytest.raises(DataError, match=message):
            MixtureSearch(n_components=[1, 2]).fit(given)
    named = pd.DataFrame(rows, columns=["a", "b", "c"])
    with pytest.raises(DataError, match=r"nan at row 40, column 'b'; .*is missing"):
        GaussianMixture().fit(named)
    with pytest.raises(DataError, match=r"-inf at row 29959, column 'a'; .* Infinity can't"):
        GaussianMixture(missing="marginalize").fit(named[40:].drop(columns="b"))

    weights = np.ones(len(rows))
    weights[[5, 29000]] = -1.0
    message = (
        r"weights must be finite and not negative: -1\.0 at row 5; such weights: 2 of 30,000; "
        r"rows with NaN or infinity: 2 of 30,000\. If NaN"
    )
    rows[40] = 0.0
    with pytest.raises(DataError, match=message):
        GaussianMixture().fit(open_dataset(rows, weights, block_bytes=240_000))


@pytest.mark.parametrize("weight", [-0.5, np.nan, np.inf])
def test_weights_that_can_not_be_are_refused_where_rows_are_judged(weight: float) -> None:
    weights = np.ones(len(ROWS))
    weights[7] = weight
    message = f"weights must be finite and not negative: {weight} at row 7"
    for answer in (
        *(MODEL.score, MODEL.bic, MODEL.aic, MODEL.summarize, MODEL.merge),
        *(MODEL.standard_errors, MODEL.bootstrap, MODEL.drift),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            answer(ROWS, sample_weight=weights)


def test_answers_and_updates_count_within_a_block() -> None:
    rows = ROWS.copy()
    rows[[7, 30], 2] = np.nan
    message = re.escape(
        "NaN or infinity in the rows: nan at row 7, column 2; such rows among these 60: 2. If NaN"
    )
    for answer in (MODEL.predict, MODEL.score, MODEL.summarize):
        with pytest.raises(DataError, match=message):
            answer(rows)


def test_partitions_that_dask_joins_as_few_columns_are_read(tmp_path: Path) -> None:
    """Files of which few columns are read become one partition when Dask optimises."""
    whole = np.random.default_rng(0).normal(size=(9_000, 6)) + np.repeat([0, 4, 8], 3_000)[:, None]
    for part in range(3):
        rows = pd.DataFrame(whole[part::3], columns=list("abcdef"))
        rows.to_parquet(tmp_path / f"{part}.parquet")
    frame = dd.read_parquet(tmp_path, columns=["a", "d"])
    in_order = np.concatenate([whole[part::3] for part in range(3)])[:, [0, 3]]
    assert len(frame.to_dask_array().chunks[0]) < frame.npartitions
    for lazy, rows in ((frame, in_order), (frame.map_partitions(abs), abs(in_order))):
        dataset = open_dataset(lazy)
        assert dataset.rows == 9_000
        there = GaussianMixture(2, random_state=0).fit(lazy)
        np.testing.assert_allclose(
            np.sort(there.means_, axis=0),
            np.sort(GaussianMixture(2, random_state=0).fit(rows).means_, axis=0),
            rtol=1e-3,
        )
