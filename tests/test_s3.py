"""``s3://`` in and out, against an S3 server on this machine, from threads and from a cluster."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import processes
import pyarrow
import pyarrow.parquet
import pytest
import scipy.sparse
import zarr
from click.testing import CliRunner
from conftest import QUIET
from distributed import Client, LocalCluster
from moto.server import ThreadedMotoServer
from processes import Process
from s3fs import S3FileSystem
from test_doors import FORMS
from test_forks import in_a_child

import dgmm
from dgmm.cli.commands import main
from dgmm.data import delimited

pytestmark = [
    pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket's URL; the processes started from here find its server in the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        S3FileSystem.clear_instance_cache()  # of other servers; and all in a process share buckets
        fsspec.filesystem("s3").mkdir("rows-of-ours")
        yield "s3://rows-of-ours"
    server.stop()


@pytest.fixture(scope="module")
def stores(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """The same rows in a plain and in a sharded store, and in a table: on S3, and here."""
    here = tmp_path_factory.mktemp("here")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6000, 3)) + 5 * rng.integers(0, 3, size=(6000, 1))
    layouts = {
        "plain": {"chunks": (500, 3)},
        "sharded": {"chunks": (250, 3), "shards": (1000, 3)},
    }
    made = {}
    for name, layout in layouts.items():
        made[name] = (f"{bucket}/{name}.zarr", here / f"{name}.zarr")
        for place in made[name]:
            array = zarr.create_array(place, shape=rows.shape, dtype="f8", **layout)
            array[:] = rows
    made["table"] = (f"{bucket}/table.parquet", here / "table.parquet")
    made["table"][1].mkdir()
    table = pyarrow.table({name: rows[:, j] for j, name in enumerate("abc")})
    for part in range(2):
        path = made["table"][1] / f"part-{part}.parquet"
        pyarrow.parquet.write_table(table.slice(3000 * part, 3000), path, row_group_size=500)
    fsspec.filesystem("s3").put(str(made["table"][1]), made["table"][0], recursive=True)
    return made


@pytest.mark.parametrize("name", ["plain", "sharded", "table"])
def test_the_same_bits_from_s3(stores: dict[str, tuple[str, Path]], name: str) -> None:
    there, here = stores[name]
    expected = dgmm.GaussianMixture(3, random_state=0).fit(here)
    found = dgmm.GaussianMixture(3, random_state=0).fit(there)
    np.testing.assert_array_equal(found.means_, expected.means_)
    np.testing.assert_array_equal(found.predict(there).compute(), expected.predict(here).compute())


def test_the_same_bits_from_s3_on_a_cluster(stores: dict[str, tuple[str, Path]]) -> None:
    expected = [dgmm.GaussianMixture(3, random_state=0).fit(here) for _, here in stores.values()]
    env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, env=env, **QUIET) as cluster,
        Client(cluster),
    ):
        spread = [
            dgmm.GaussianMixture(3, random_state=0).fit(there) for there, _ in stores.values()
        ]
    for found, model in zip(spread, expected, strict=True):
        assert found.fit_info_["engine"] == "distributed"
        np.testing.assert_array_equal(found.means_, model.means_)


def in_the_form_of(kind: str, rows: np.ndarray, place: Path) -> str:
    """Write rows below a place, and say by what name they are read there."""
    if kind == "csv":
        np.savetxt(place / "rows.csv", rows, delimiter=",", header="a,b,c", comments="")
        return "rows.csv"
    if kind == "h5":
        with h5py.File(place / "rows.h5", "w") as file:
            file.create_dataset("rows", data=rows, chunks=(100, 3))
        return "rows.h5::rows"
    if kind == "variables":
        with h5py.File(place / "columns.h5", "w") as file:
            for name, column in zip("abc", rows.T, strict=True):
                file.create_dataset(name, data=column, chunks=(100,))
        return "columns.h5"
    if kind == "tif":
        rasterio = pytest.importorskip("rasterio")
        size = {"height": 30, "width": 20, "count": 3, "dtype": "float64"}
        with rasterio.open(place / "rows.tif", "w", driver="GTiff", blockysize=2, **size) as file:
            file.write(rows.T.reshape(3, 30, 20))
        return "rows.tif"
    if kind == "sparse":
        found = scipy.sparse.csr_array(np.where(rows > 1, rows, 0))
        group = zarr.open_group(place / kind, mode="w", attributes={"shape": found.shape})
        parts = {name: getattr(found, name) for name in ("data", "indices", "indptr")}
    else:
        group = zarr.open_group(place / kind, mode="w")
        parts = dict(zip("abc", rows.T, strict=True))
    for name, column in parts.items():
        group.create_array(name, data=np.ascontiguousarray(column), chunks=(100,))
    return kind


KINDS = ["csv", "h5", "variables", "tif", "group", "sparse"]


def test_all_forms_that_are_said_to_be_read_from_s3_are_read_here() -> None:
    """The table of the guide is made of these words."""
    assert {form.s3 for form in FORMS.values()} - {"", "no"} == {"plain", "table", *KINDS} - {
        "sparse"
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_every_other_form_is_read_from_s3_as_it_is_here(
    bucket: str, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "PART_BYTES", 3000)
    rows = np.random.default_rng(0).normal(size=(600, 3)).round(6)
    name = in_the_form_of(kind, rows, tmp_path)
    (written,) = tmp_path.iterdir()
    there = f"{bucket}/{written.name}"
    fsspec.filesystem("s3").put(str(written), there, recursive=written.is_dir())
    more = {"columns": ["a", "b", "c"]} if kind in ("variables", "group") else {}
    local, remote = (
        dgmm.open_dataset(f"{place}/{name}", block_bytes=3000, **more)
        for place in (tmp_path, bucket)
    )
    assert remote.blocks > 3
    np.testing.assert_array_equal(remote.divisions, local.divisions)
    for index in range(remote.blocks):
        found, expected = (each.block(index).rows for each in (remote, local))
        if kind == "sparse":
            found, expected = found.csr.toarray(), expected.csr.toarray()
        np.testing.assert_array_equal(found, expected)
    one, other = (
        dgmm.GaussianMixture(1, covariance_type="diag").fit(each) for each in (local, remote)
    )
    assert one.means_.tobytes() == other.means_.tobytes()


@pytest.mark.parametrize("name", ["rows.npy", "rows.npz::rows", "rows.arrow", "rows.feather"])
def test_what_is_read_here_alone_says_so(bucket: str, name: str) -> None:
    fsspec.filesystem("s3").pipe(f"{bucket}/{name.partition('::')[0]}", b"any")
    with pytest.raises(dgmm.UsageError, match="local paths; remote data as"):
        dgmm.open_dataset(f"{bucket}/{name}")


def test_a_forked_process_has_connections_of_its_own(stores: dict[str, tuple[str, Path]]) -> None:
    """What the parent opened is opened again; it would wait for the parent's threads."""
    there, here = stores["sharded"]
    opened = [zarr.open_array(there, mode="r"), dgmm.open_dataset(there), there]
    expected = dgmm.GaussianMixture(3, random_state=0).fit(here).predict(here).compute()

    def labels(rows: Any) -> np.ndarray:
        return np.asarray(dgmm.GaussianMixture(3, random_state=0).fit(rows).predict(rows))

    for rows in opened:
        np.testing.assert_array_equal(labels(rows), expected)
    for rows in opened:
        np.testing.assert_array_equal(in_a_child(lambda rows=rows: labels(rows)), expected)


def test_the_command_line_on_s3(bucket: str, stores: dict[str, tuple[str, Path]]) -> None:
    rows, model, labels = stores["sharded"][0], f"{bucket}/m.dgmm", f"{bucket}/labels.zarr"

    def run(*words: str) -> dict[str, object]:
        done = CliRunner().invoke(main, [*words, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def names() -> set[str]:
        found = fsspec.filesystem("s3", use_listings_cache=False).find("rows-of-ours")
        return {key.split("/")[1] for key in found}

    before = names()
    run("fit", rows, "-k", "3", "-o", model)
    run("predict", rows, "-m", model, "-o", labels)
    fitted = dgmm.load(model)
    expected = fitted.predict(zarr.open_array(stores["plain"][1], mode="r")[:])
    np.testing.assert_array_equal(zarr.open_array(labels, mode="r")[:], expected)
    assert names() - before == {"m.dgmm", "labels.zarr"}
    assert before >= {"plain.zarr", "sharded.zarr", "table.parquet"}

    again = CliRunner().invoke(main, ["predict", rows, "-m", model, "-o", labels])
    assert again.exit_code == 3
    run("predict", rows, "-m", model, "-o", labels, "--kind", "score", "--overwrite")
    scores = zarr.open_array(labels, mode="r")[:]
    assert scores.mean() == pytest.approx(run("score", rows, "-m", model)["score"], rel=1e-12)


def test_outputs_are_files_on_s3_as_they_are_here(bucket: str, tmp_path: Path) -> None:
    """A raster there gives a raster, NetCDF and NumPy files there, whole or not at all."""
    rasterio = pytest.importorskip("rasterio")
    size = {"height": 30, "width": 20, "count": 3, "dtype": "float64", "crs": "EPSG:32633"}
    place = {"transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.2e6)}
    rows = np.random.default_rng(0).normal(size=(3, 30, 20)) + 5 * (np.arange(20) % 2)
    with rasterio.open(tmp_path / "rows.tif", "w", driver="GTiff", **size, **place) as file:
        file.write(rows)
    s3 = fsspec.filesystem("s3")
    s3.put(str(tmp_path / "rows.tif"), f"{bucket}/maps/rows.tif")
    dgmm.GaussianMixture(2, random_state=0).fit(tmp_path / "rows.tif").save(tmp_path / "m.dgmm")
    for ending in ("tif", "nc", "npy"):
        for at in (tmp_path, f"{bucket}/maps"):
            words = ["predict", f"{at}/rows.tif", "-m", f"{tmp_path}/m.dgmm", "--quiet"]
            done = CliRunner().invoke(main, [*words, "-o", f"{at}/labels.{ending}"])
            assert done.exit_code == 0, done.output
            again = CliRunner().invoke(main, [*words, "-o", f"{at}/labels.{ending}"])
            assert again.exit_code == 3
        s3.get(f"{bucket}/maps/labels.{ending}", str(tmp_path / f"back.{ending}"))
    np.testing.assert_array_equal(np.load(tmp_path / "back.npy"), np.load(tmp_path / "labels.npy"))
    labels = np.load(tmp_path / "labels.npy")
    with rasterio.open(tmp_path / "back.tif") as file:
        assert (file.crs, file.transform) == (size["crs"], place["transform"])
        np.testing.assert_array_equal(file.read(1).ravel(), labels)
    with h5py.File(tmp_path / "back.nc") as file:
        np.testing.assert_array_equal(file["label"][:], labels)
    found = fsspec.filesystem("s3", use_listings_cache=False).find(f"{bucket}/maps")
    names = {key.rpartition("/")[2] for key in found}
    assert names == {"rows.tif", "labels.tif", "labels.nc", "labels.npy"}


FIT = dict(strategy="em", tol=1e-6, random_state=0)


def passes_in(place: str) -> list[int]:
    """The passes that a checkpoint has."""
    filesystem = fsspec.filesystem("s3")
    filesystem.invalidate_cache()
    names = [path.rpartition("/")[2] for path in filesystem.ls(place)]
    return sorted(int(name.removeprefix("pass-").removesuffix(".dgmm")) for name in names)


def assert_same(one: dgmm.GaussianMixture, other: dgmm.GaussianMixture) -> None:
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.lower_bounds_ == other.lower_bounds_


@pytest.mark.parametrize("last", [1, 2, 6])
def test_a_fit_goes_on_from_a_checkpoint_on_s3(
    bucket: str, stores: dict[str, tuple[str, Path]], last: int
) -> None:
    there, here = stores["plain"]
    place = f"{bucket}/stopped-{last}"
    whole = dgmm.GaussianMixture(3, **FIT).fit(here)
    walking = dgmm.GaussianMixture(3, **FIT, checkpoint=place).fit_passes(there)
    for progress in walking:
        if progress.passes == last:
            break
    walking.close()
    assert passes_in(place)[-1] == last

    again = dgmm.GaussianMixture(3, **FIT, checkpoint=place)
    assert next(again.fit_passes(there)).passes == last
    assert_same(again.fit(there), whole)
    end = whole.fit_info_["passes"]
    assert passes_in(place) == [1, end - 2, end - 1, end]
    anew = dgmm.GaussianMixture(3, **FIT, checkpoint=place, resume=False)
    next(anew.fit_passes(there))
    assert passes_in(place) == [1]


def test_a_killed_fit_goes_on_from_a_checkpoint_on_s3(
    bucket: str, stores: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    place = f"{bucket}/killed"
    words = ["fit", stores["plain"][0], "-k", "3", "--strategy", "em", "--tol", "0"]
    words += ["--max-iter", "40", "--checkpoint", place, "-o"]

    def start(model: str) -> Process:
        return processes.start(*words, model, cwd=tmp_path)

    with start("model.dgmm") as process:
        assert any(line.startswith("pass 4:") for line in process.stderr)
        process.kill()
    reached = passes_in(place)[-1]
    assert 4 <= reached < 42
    with start("model.dgmm") as process:
        told = process.communicate()[1]
    assert process.returncode == 0, told
    assert f"continuing after pass {reached}, from {place}" in told
    assert passes_in(place) == [1, 40, 41, 42]
    place = f"{bucket}/undisturbed"
    words[words.index(f"{bucket}/killed")] = place
    with start("undisturbed.dgmm") as process:
        process.communicate()
    models = (dgmm.load(tmp_path / name) for name in ("model.dgmm", "undisturbed.dgmm"))
    assert_same(*models)


@pytest.mark.parametrize("first", [0, 3])
def test_of_two_drivers_on_s3_the_slower_one_ends(
    bucket: str, stores: dict[str, tuple[str, Path]], monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """It has seen that nobody is there, and is overtaken before it writes."""
    there, here = stores["plain"]
    place = f"{bucket}/two-{first}"
    slow = dgmm.GaussianMixture(3, **FIT, checkpoint=place).fit_passes(there)
    for _ in range(first):
        next(slow)
    filesystem = fsspec.filesystem("s3")
    put, overtaken = filesystem.pipe_file, []

    def after_another(*given: object, **options: object) -> None:
        if str(given[0]).endswith(".partial"):  # whether there is a place at all
            put(*given, **options)
            return
        monkeypatch.setattr(filesystem, "pipe_file", put)
        fast = dgmm.GaussianMixture(3, **FIT, checkpoint=place).fit_passes(there)
        overtaken.append([next(fast).passes for _ in range(2)][-1])
        put(*given, **options)

    monkeypatch.setattr(filesystem, "pipe_file", after_another)
    with pytest.raises(dgmm.CheckpointError, match="another driver writes to"):
        list(slow)
    assert overtaken == [max(2, first + 1)]
    assert passes_in(place)[-1] == overtaken[0]
    model = dgmm.GaussianMixture(3, **FIT, checkpoint=place).fit(there)
    assert_same(model, dgmm.GaussianMixture(3, **FIT).fit(here))


def test_a_file_on_s3_is_not_made_twice(bucket: str) -> None:
    """Not in one PUT, and not in parts, as what is too large for that."""
    for rows in (10, 14_000_000):
        url = f"{bucket}/once-{rows}.dgmm"
        arrays = {"zeros": np.zeros(rows)}
        dgmm.io.storage.create(url, "dgmm-once", arrays, {"by": "the first"})
        with pytest.raises(FileExistsError):
            dgmm.io.storage.create(url, "dgmm-once", arrays, {"by": "the second"})
        found, header = dgmm.io.storage.read(url, "dgmm-once")
        assert header["by"] == "the first"
        np.testing.assert_array_equal(found["zeros"], arrays["zeros"])


@pytest.mark.parametrize("name", ["plain", "sharded"])
def test_a_chunk_lost_since_it_was_opened_is_told(
    bucket: str, stores: dict[str, tuple[str, Path]], name: str
) -> None:
    """Though the file system remembers it, from when it listed the store."""
    rows, there = stores[name][0], fsspec.filesystem("s3", skip_instance_cache=True)
    copy = f"{bucket}/losing-{name}.zarr"
    there.copy(rows, copy, recursive=True)
    dataset = dgmm.open_dataset(copy)
    there.rm_file(f"{copy}/c/1/0")
    with pytest.raises(dgmm.DataError, match="has lost chunk 'c/1/0' since it was opened"):
        dataset.block(0)


def test_what_is_not_there_is_told(bucket: str) -> None:
    for url in (f"{bucket}/no.zarr", "s3://no-such-bucket/no.zarr"):
        with pytest.raises(dgmm.DataError, match="does not exist"):
            dgmm.GaussianMixture(2).fit(url)
    with pytest.raises(dgmm.ModelFileError, match=r"no\.dgmm does not exist"):
        dgmm.load(f"{bucket}/no.dgmm")


HASTY = {"AWS_MAX_ATTEMPTS": "1", "DASK_DGMM__STORE_SECONDS": "0.5"}
"""Settings with which a store that is away is given up soon."""

UNREACHED = """
import sys
import dgmm

for ask, error in (
    (dgmm.open_dataset, dgmm.DataError),
    (dgmm.load, dgmm.ModelFileError),
    (dgmm.load(sys.argv[1]).save, dgmm.DataError),
):
    try:
        ask("s3://rows-of-ours/nothing")
    except error as caught:
        print(caught)
"""


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:{port}"}, "connect"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_EC2_METADATA_DISABLED": "true"}, "credentials"),
    ],
    ids=["no server", "no credentials"],
)
def test_a_store_that_can_not_be_reached_is_told(
    bucket: str,
    stores: dict[str, tuple[str, Path]],
    tmp_path: Path,
    setting: dict[str, str | None],
    message: str,
) -> None:
    model = tmp_path / "m.dgmm"
    dgmm.GaussianMixture(3, random_state=0).fit(stores["plain"][1]).save(model)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        changed = {name: value and value.format(port=port) for name, value in setting.items()}
        settings = {**os.environ, **HASTY, "HOME": str(tmp_path), **changed}
        process = processes.start(
            model,
            cwd=tmp_path,
            script=UNREACHED,
            env={name: value for name, value in settings.items() if value is not None},
            stdout=subprocess.PIPE,
        )
        printed, said = process.communicate()
    assert process.returncode == 0, said
    told = printed.splitlines()
    assert len(told) == 3
    assert all(line.startswith("s3://rows-of-ours/nothing ") and message in line for line in told)


@pytest.mark.parametrize("machines", [(), ("--workers", "2")], ids=["threads", "processes"])
def test_a_store_that_goes_away_is_a_reason_to_try_again(
    bucket: str, stores: dict[str, tuple[str, Path]], tmp_path: Path, machines: tuple[str, ...]
) -> None:
    """Exit code 4, whether it goes during the fit or was not there to begin with."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)  # it serves the same buckets
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", **HASTY}
    words = ["fit", stores["plain"][0], "-k", "3", "--strategy", "em", "--tol", "0", "--cache"]
    words += ["none", "--max-iter", "400", "--checkpoint", "passes", "-o", "model.dgmm", *machines]

    def start() -> Process:
        return processes.start(*words, cwd=tmp_path, env={**os.environ, **settings})

    with start() as process:
        assert any(line.startswith("pass 3:") for line in process.stderr)
        server.stop()
        told = process.communicate()[1]
    assert process.returncode == 4, told
    assert any(line.startswith("Error: rows ") for line in told.splitlines())
    with start() as process:
        told = process.communicate()[1]
    assert process.returncode == 4, told
    assert not (tmp_path / "model.dgmm").exists()
