"""Checkpoints: at every pass a state to go on from, to the same bits; of one fit, by one driver."""

import errno
import importlib
import json
import os
import shutil
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from dgmm import CheckpointError, DataError, GaussianMixture, engine, open_dataset
from dgmm.em.init import representative
from dgmm.em.solver import RunState
from dgmm.em.subsamples import Samples
from dgmm.io import storage
from dgmm.io.checkpoint import FORMAT, Checkpoint
from dgmm.io.codec import Known, decode, encode
from dgmm.model.covariance import COVARIANCE_MODELS

FITS: dict[str, dict[str, Any]] = {
    **{name: {"covariance_type": name} for name in COVARIANCE_MODELS},
    "em": {"strategy": "em", "tol": 1e-4},
    "em, three starts": {"strategy": "em", "n_init": 3, "init_params": "random_from_data"},
    "a given start": {"means_init": [[0, 0, 0], [1, 1, 1], [2, 2, 2]], "max_iter": 8},
    "cut short": {"max_iter": 2, "resolution": 1e-9},
}


def drawn(rows: int = 40_000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = 1.5 * rng.normal(size=(4, 3))
    return centres[rng.integers(4, size=rows)] + rng.normal(size=(rows, 3))


def model(place: str | Path | None = None, **params: Any) -> GaussianMixture:
    return GaussianMixture(3, **{"random_state": 0, **params}, checkpoint=place)


def stopped(rows: Any, passes: int, **params: Any) -> None:
    """A fit that is left after so many passes."""
    walking = model(**params).fit_passes(rows)
    for progress in walking:
        if progress.passes == passes:
            break
    walking.close()


def fitted(rows: Any, **params: Any) -> GaussianMixture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model(**params).fit(rows)


def assert_same(one: GaussianMixture, other: GaussianMixture) -> None:
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.lower_bounds_ == other.lower_bounds_
    assert one.converged_ == other.converged_
    np.testing.assert_array_equal(
        one.sufficient_statistics_.sums, other.sufficient_statistics_.sums
    )
    left_out = {"seconds", "seconds_on_samples", "starts_seconds"}
    assert {k: v for k, v in one.fit_info_.items() if k not in left_out} == {
        k: v for k, v in other.fit_info_.items() if k not in left_out
    }


@pytest.mark.parametrize(
    ("name", "where"), [*((name, "local") for name in FITS), ("full", "memory"), ("em", "memory")]
)
def test_it_goes_on_from_every_pass_to_the_same_bits(tmp_path: Path, name: str, where: str) -> None:
    rows, params = drawn(), FITS[name]
    place = str(tmp_path / "fit") if where == "local" else f"memory://{tmp_path.name}/fit"
    files = fsspec.filesystem("file" if where == "local" else "memory")
    whole = model(place, **params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for step in whole.fit_passes(rows):
            files.copy(f"{place}/", f"{place}-{step.passes}/", recursive=True)
    assert_same(whole, fitted(rows, **params))
    for reached in range(1, whole.fit_info_["passes"] + 1):
        again = model(f"{place}-{reached}", **params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            first, *_ = again.fit_passes(rows)
        assert first.passes == reached
        assert_same(again, whole)


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_of_no_mixture_go_on_to_the_same_bits(tmp_path: Path, weighted: bool) -> None:
    """Many passes by quasi-Newton, with the information of a sample, stopped after every second."""
    rng = np.random.default_rng(0)
    rows = rng.laplace(size=(60_000, 3))
    rows[:, 0] += 2 * rng.integers(3, size=len(rows))
    weights = rng.exponential(size=len(rows)) if weighted else None
    whole = GaussianMixture(5, random_state=0).fit(rows, sample_weight=weights)
    assert whole.fit_info_["passes"] > 8
    ended = False
    while not ended:
        robust = GaussianMixture(5, random_state=0, checkpoint=tmp_path / "fit")
        walking = robust.fit_passes(rows, sample_weight=weights)
        ended = all(each.resumed or each.passes % 2 for each in walking)
        walking.close()
    assert_same(robust, whole)


def test_the_random_numbers_are_kept(tmp_path: Path) -> None:
    """Nobody gave a seed, and yet it ends in one way."""
    rows, place = drawn(), tmp_path / "fit"
    stopped(rows, 1, place=place, random_state=None)
    shutil.copytree(place, tmp_path / "copy")
    one, other = (
        fitted(rows, place=each, random_state=None) for each in (place, tmp_path / "copy")
    )
    assert_same(one, other)


def test_stopped_at_every_pass_once(tmp_path: Path) -> None:
    rows, place = drawn(), tmp_path / "fit"
    whole = fitted(rows, strategy="em", tol=1e-4)
    for stop in range(1, whole.fit_info_["passes"] + 1):
        stopped(rows, stop, place=place, strategy="em", tol=1e-4)
    assert_same(fitted(rows, place=place, strategy="em", tol=1e-4), whole)


def test_the_first_and_the_last_few_are_kept(tmp_path: Path) -> None:
    whole = fitted(drawn(), place=tmp_path / "fit", strategy="em", tol=1e-4)
    last = whole.fit_info_["passes"]
    assert sorted(path.name for path in (tmp_path / "fit").iterdir()) == [
        f"pass-{number:06d}.dgmm" for number in (1, last - 2, last - 1, last)
    ]


def _shifted(rows: np.ndarray) -> np.ndarray:
    changed = rows.copy()
    changed[-1, 0] += 1
    return changed


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        (lambda rows: rows, {"tol": 1e-3}, "tol is 0.001, was None"),
        (lambda rows: rows, {"covariance_type": "diag"}, "covariance_type is diag, was full"),
        (lambda rows: rows, {"random_state": 1}, "random_state is 1, was 0"),
        (lambda rows: rows, {"means_init": np.eye(3)}, "means_init is [0-9a-f]{16}, was None"),
        (lambda rows: rows.astype("f4"), {}, "dtype is float32, was float64"),
        (lambda rows: rows[:-1], {}, r"rows is \[39999, 3\], was \[40000, 3\]"),
        (_shifted, {}, "another fit: other values in the rows"),
    ],
)
def test_another_fit_is_refused_and_told_what_differs(
    tmp_path: Path,
    change: Callable[[np.ndarray], np.ndarray],
    params: dict[str, Any],
    message: str,
) -> None:
    rows, place = drawn(), tmp_path / "fit"
    stopped(rows, 2, place=place)
    before = sorted(path.read_bytes() for path in place.iterdir())
    with pytest.raises(CheckpointError, match=message):
        model(place, **params).fit(change(rows))
    assert sorted(path.read_bytes() for path in place.iterdir()) == before
    begun_anew = fitted(change(rows), place=place, resume=False, **params)
    assert_same(begun_anew, fitted(change(rows), **params))


def test_the_newest_whole_file_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows, place = drawn(), tmp_path / "fit"
    whole = fitted(rows, strategy="em", tol=1e-4)
    stopped(rows, 6, place=place, strategy="em", tol=1e-4)
    newest = place / "pass-000006.dgmm"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert_same(fitted(rows, place=place, strategy="em", tol=1e-4), whole)
    assert "pass-000006.dgmm is no usable checkpoint file" in caplog.text


def test_without_the_first_file_it_is_no_checkpoint(tmp_path: Path) -> None:
    rows, place = drawn(), tmp_path / "fit"
    stopped(rows, 3, place=place)
    (place / "pass-000001.dgmm").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no usable .* start over \(.*--no-resume"):
        model(place).fit(rows)


@pytest.mark.parametrize("first", [1, 3])
def test_of_two_drivers_the_slower_one_ends(tmp_path: Path, first: int) -> None:
    rows, place = drawn(), tmp_path / "fit"
    params = {"strategy": "em", "tol": 1e-4}
    slow = model(place, **params).fit_passes(rows)
    for _ in range(first):
        next(slow)
    whole = fitted(rows, place=place, **params)
    with pytest.raises(CheckpointError, match="another driver writes to"):
        list(slow)
    assert_same(fitted(rows, place=place, **params), whole)


@pytest.mark.parametrize("kind", ["full", "tied"])
@pytest.mark.parametrize("where", ["local", "memory"])
def test_writing_the_sample_takes_no_more_than_is_planned(
    tmp_path: Path, where: str, kind: str
) -> None:
    rows = np.random.default_rng(0).normal(size=(60_000, 40))
    place = str(tmp_path / "fit") if where == "local" else f"memory://{tmp_path.name}/fit"
    plain, kept = (model(each, covariance_type=kind) for each in (None, place))
    planned = kept.plan(rows).shared_bytes - plain.plan(rows).shared_bytes
    first = next(plain.fit_passes(rows))
    checkpoint = Checkpoint(place, {})
    tracemalloc.start()
    checkpoint.save(first, np.random.RandomState(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert first.moments.sample.rows.nbytes < peak < planned


def left(place: Path, *numbers: int) -> list[Path]:
    """Files as a driver leaves them that is killed while it writes these passes."""
    paths = [place / f"pass-{number:06d}.dgmm.{uuid4().hex}.partial" for number in numbers]
    for path in paths:
        path.write_bytes(b"PK half a file")
    return paths


def test_what_killed_drivers_left_is_deleted_once_it_is_of_no_use(tmp_path: Path) -> None:
    rows, place = drawn(), tmp_path / "fit"
    params = {"strategy": "em", "tol": 1e-4}
    stopped(rows, 3, place=place, **params)
    first, third, fourth, fifth = left(place, 1, 3, 4, 5)
    foreign = [place / "pass-000002.dgmm.partial", place / f"model.dgmm.{uuid4().hex}.partial"]
    for path in foreign:
        path.write_bytes(b"")
    walking = model(place, **params).fit_passes(rows)
    assert next(walking).passes == 3
    assert not any(path.exists() for path in (first, third))
    assert fourth.exists()  # somebody may be writing it
    assert next(walking).passes == 4
    assert [path.exists() for path in (fourth, fifth)] == [False, True]
    walking.close()
    fitted(rows, place=place, **params)
    assert sorted(place.glob("*.partial")) == sorted(foreign)

    left(place, 2, 99)
    fitted(rows, place=place, resume=False, **params)
    assert sorted(place.glob("*.partial")) == sorted(foreign)


def test_a_driver_overtaken_while_it_writes_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though what it wrote is gone when it comes to publish it."""
    rows, place = drawn(), tmp_path / "fit"
    params = {"strategy": "em", "tol": 1e-4}
    slow = model(place, **params).fit_passes(rows)
    for _ in range(3):
        next(slow)
    link, whole = os.link, []

    def after_another(source: str, target: str) -> None:
        monkeypatch.setattr(os, "link", link)
        whole.append(fitted(rows, place=place, **params))
        link(source, target)

    monkeypatch.setattr(os, "link", after_another)
    with pytest.raises(CheckpointError, match="another driver writes to"):
        next(slow)
    assert not list(place.glob("*.partial"))
    assert_same(fitted(rows, place=place, **params), whole[0])


def test_rows_that_change_while_fitting_are_noticed(tmp_path: Path) -> None:
    store = tmp_path / "rows.zarr"
    array = zarr.create_array(store, data=drawn(), chunks=(1000, 3))
    walking = model(strategy="em", tol=0, max_iter=50, cache="none").fit_passes(store)
    next(walking)
    next(walking)
    array[5000:6000] += 0.1
    with pytest.raises(DataError, match="not those of the first pass"):
        list(walking)


@pytest.mark.parametrize("layout", [{}, {"shards": (4000, 3)}, {"zarr_format": 2}])
def test_a_chunk_that_goes_away_is_named(tmp_path: Path, layout: dict[str, Any]) -> None:
    store = tmp_path / "rows.zarr"
    zarr.create_array(store, data=drawn(), chunks=(1000, 3), **layout)
    walking = model(strategy="em", tol=0, max_iter=50, cache="none").fit_passes(store)
    next(walking)
    lost = next(
        p
        for p in store.rglob("*")
        if p.is_file() and "zarr" not in p.name and not p.name.startswith(".")
    )
    lost.unlink()
    with pytest.raises(DataError, match="since it was opened"):
        list(walking)


@pytest.mark.filterwarnings("ignore:component:dgmm.DegenerateWarning")  # of the equal rows
def test_chunks_that_hold_the_fill_value_are_no_loss(tmp_path: Path) -> None:
    rows = drawn()
    rows[3000:5000] = 0.0
    store = tmp_path / "rows.zarr"
    array = zarr.create_array(
        store, shape=rows.shape, dtype="f8", chunks=(1000, 3), config={"write_empty_chunks": True}
    )
    array[:] = rows
    assert_same(fitted(store), fitted(open_dataset(store)))
    fitted(store, strategy="em")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of two checkpoints."""
    place = tmp_path_factory.mktemp("fuzz")
    stopped(drawn(2000), 4, place=place / "auto")
    stopped(drawn(2000), 4, place=place / "em", strategy="em", tol=1e-6)
    return place


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_are_errors(tmp_path: Path, written: Path, data: st.DataObject) -> None:
    """Bits flipped, ends cut off, bytes put in: refused, or what was written."""
    whole = data.draw(st.sampled_from(sorted(written.rglob("*.dgmm"))))
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "remove"])):
            case "flip" if content:
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del content[at:]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
            case _:
                del content[at : at + data.draw(st.integers(1, 9))]
    path = tmp_path / "pass.dgmm"
    path.write_bytes(content)
    try:
        arrays, header = storage.read(str(path), FORMAT)
    except DataError:
        return
    expected, told = storage.read(str(whole), FORMAT)
    assert header == told
    for each, value in expected.items():
        np.testing.assert_array_equal(arrays[each], value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["solver", "state", "trial", "context", "array0"]), inner)
    ),
    max_leaves=8,
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from(["moments", "candidates", "of", "random", "densities"]), value=values)
@example(name="candidates", value=[[[{}], 0.0, None, 0]])
def test_headers_of_another_kind_are_errors(
    tmp_path: Path, name: str, value: Any, written: Path
) -> None:
    """Whole files, with a right checksum, that say something else."""
    rows, place = drawn(2000), tmp_path / "fit"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(written / "auto", place)
    chosen = max(place.iterdir()) if name in ("candidates", "densities") else min(place.iterdir())
    arrays, header = storage.read(str(chosen), FORMAT)
    chosen.unlink()
    storage.create(str(chosen), FORMAT, arrays, json.loads(json.dumps({**header, name: value})))
    try:
        fitted(rows, place=place)
    except DataError:
        return
    assert name in ("densities", "random")


Encoded = tuple[Any, dict[str, np.ndarray], Known]


@pytest.fixture(scope="module")
def encoded() -> list[Encoded]:
    """Runs as they are in files: by the quasi-Newton solver, SQUAREM, and EM."""
    found = []
    for rows, strategy in ((40_000, "auto"), (1000, "auto"), (1000, "em")):
        *_, last = model(strategy=strategy, tol=1e-3).fit_passes(drawn(rows))
        spec, moments, arrays = last.best.spec, last.moments, dict[str, np.ndarray]()
        samples = Samples(representative(moments), moments.weighted, engine.in_memory_sweep)
        known = Known(last.best.context, samples, spec.strategy.solvers)
        found.append((encode(last.run, arrays), arrays, known))
    return found


def places(told: Any) -> Iterator[tuple[Any, ...]]:
    """Where there is something in lists and dictionaries: the keys that lead there."""
    keys = told if isinstance(told, dict) else range(len(told)) if isinstance(told, list) else ()
    for key in keys:
        yield (key,)
        yield from ((key, *rest) for rest in places(told[key]))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_wrong_values_anywhere_in_a_run_are_errors(
    encoded: list[Encoded], data: st.DataObject
) -> None:
    """Something else in one place: refused, or a run."""
    told, arrays, known = data.draw(st.sampled_from(encoded))
    changed = json.loads(json.dumps(told))
    *path, key = data.draw(st.sampled_from(list(places(told))))
    inside = changed
    for each in path:
        inside = inside[each]
    inside[key] = data.draw(values | st.sampled_from(["Squarem", "QuasiNewton", *arrays]))
    with suppress(CheckpointError):
        assert isinstance(decode(RunState, changed, arrays, known), RunState)


def test_runs_are_read_as_they_were_written(encoded: list[Encoded]) -> None:
    for told, arrays, known in encoded:
        again = dict[str, np.ndarray]()
        assert encode(decode(RunState, told, arrays, known), again) == told
        assert arrays.keys() == again.keys()
        assert all(arrays[name] is again[name] for name in arrays)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no such aliases before")
def test_arrays_are_read_where_their_type_has_a_name() -> None:
    """As NumPy's ``NDArray`` has from 2.5 on."""
    typing: Any = importlib.import_module("typing")
    parameter = typing.TypeVar("parameter", bound=np.generic)
    alias = typing.TypeAliasType(
        "alias", np.ndarray[Any, np.dtype[parameter]], type_params=(parameter,)
    )
    for kind in (alias[np.float64], typing.TypeAliasType("named", np.ndarray)):
        np.testing.assert_array_equal(decode(kind, "array0", {"array0": np.ones(3)}), np.ones(3))


def test_a_place_without_hard_links_is_told_before_the_first_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As such file systems tell it: those of memory cards, and many that lie in a cloud."""

    def refuse(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", source)

    monkeypatch.setattr(os, "link", refuse)
    fit = model(tmp_path / "check").fit_passes(drawn(1000))
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*not permitted.* hard links"):
        next(fit)
    assert not list((tmp_path / "check").iterdir())
