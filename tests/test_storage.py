"""Model files: whole or not at all, checked when read, and nothing but data."""

import json
import pickle
import resource
import warnings
import zipfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from conftest import some_blobs

import dgmm
from dgmm import DataError, GaussianMixture, ModelFileError, load
from dgmm.io import storage
from dgmm.model.covariance import COVARIANCE_MODELS

PARAMETERS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")


@pytest.fixture(scope="module")
def fitted() -> GaussianMixture:
    return GaussianMixture(3, random_state=0).fit(some_blobs())


@pytest.fixture
def model(fitted: GaussianMixture) -> GaussianMixture:
    """A copy, to be changed as one likes."""
    return deepcopy(fitted)


@pytest.fixture
def file(model: GaussianMixture, tmp_path: Path) -> Path:
    model.save(tmp_path / "model.dgmm")
    return tmp_path / "model.dgmm"


@pytest.mark.parametrize("kind", COVARIANCE_MODELS)
@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_model_comes_back_bit_for_bit(
    tmp_path: Path, blobs: np.ndarray, kind: str, place: str
) -> None:
    url = str(tmp_path / "m.dgmm") if place == "local" else f"memory://{tmp_path.name}/m.dgmm"
    model = GaussianMixture(3, covariance_type=kind, random_state=0, tol=1e-4).fit(blobs)
    model.save(url)
    back = load(url)
    for name in PARAMETERS:
        np.testing.assert_array_equal(getattr(back, name), getattr(model, name))
    for name in ("converged_", "n_iter_", "lower_bound_", "lower_bounds_", "n_features_in_"):
        assert getattr(back, name) == getattr(model, name)
    assert back.get_params() == model.get_params()
    assert back.fit_info_ == model.fit_info_
    np.testing.assert_array_equal(back.score_samples(blobs), model.score_samples(blobs))


def test_it_can_be_read_without_dgmm(file: Path, model: GaussianMixture) -> None:
    archive = np.load(file, allow_pickle=False)
    np.testing.assert_array_equal(archive["means"], model.means_)
    np.testing.assert_array_equal(archive["covariances"], model.covariances_)
    assert json.loads(str(archive["header"]))["format"] == "dgmm-model"


def test_nothing_is_overwritten_unasked(file: Path, model: GaussianMixture) -> None:
    before = file.read_bytes()
    with pytest.raises(DataError, match="exists"):
        model.save(file)
    assert file.read_bytes() == before
    model.save(file, overwrite=True)
    assert file.read_bytes() == before  # the same model, the same bytes
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("place", ["nowhere/model.dgmm", "file/model.dgmm"])
def test_a_failing_write_leaves_nothing(tmp_path: Path, model: GaussianMixture, place: str) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(DataError, match="can't be written"):
        model.save(tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_half_way_keeps_the_old_file(file: Path, model: GaussianMixture) -> None:
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        with pytest.raises(DataError, match="can't be written"):
            model.save(file, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_directory_is_not_overwritten(tmp_path: Path, model: GaussianMixture) -> None:
    (tmp_path / "here" / "kept").mkdir(parents=True)
    with pytest.raises(DataError):
        model.save(tmp_path / "here", overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "kept"]


def test_an_address_of_no_known_kind_is_refused(model: GaussianMixture) -> None:
    with pytest.raises(DataError, match="nope"):
        model.save("nope://bucket/model.dgmm")
    with pytest.raises(ModelFileError, match="nope"):
        load("nope://bucket/model.dgmm")


def test_every_truncation_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match="no usable model file"):
            load(file)


def test_no_flipped_bit_gives_another_model(file: Path, model: GaussianMixture) -> None:
    """Where a bit of the archive's own book-keeping is hit, the model may still be whole."""
    whole = file.read_bytes()
    refused = 0
    for place in range(0, len(whole), 41):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        file.write_bytes(bytes(flipped))
        try:
            back = load(file)
        except ModelFileError:
            refused += 1
        else:
            for name in PARAMETERS:
                np.testing.assert_array_equal(getattr(back, name), getattr(model, name))
    assert refused > len(whole) // 41 // 2


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("exploded"),))  # type: ignore[return-value]


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))


def _pickle_within(path: Path) -> None:
    arrays = dict(np.load(path))
    with path.open("wb") as out:
        np.savez(out, **{**arrays, "means": np.array([Bomb()], dtype=object)})


def _compressed(path: Path) -> None:
    arrays = dict(np.load(path))
    with path.open("wb") as out:
        np.savez_compressed(out, **arrays)


def _changed(signed: bool = True, **changes: object):  # type: ignore[no-untyped-def]
    """Change a file, and its checksum with it if ``signed``."""

    def change(path: Path) -> None:
        arrays = dict(np.load(path))
        header = json.loads(str(arrays.pop("header")))
        for name, value in changes.items():
            among = arrays if name in arrays else header
            among[name] = value(among[name]) if callable(value) else value
        if signed:
            header["sha256"] = storage.digest(arrays, header)
        with path.open("wb") as out:
            np.savez(out, header=np.array(json.dumps(header)), **arrays)

    return change


FLAWS = {
    "empty": (lambda path: path.write_bytes(b""), "damaged or of another kind"),
    "text": (lambda path: path.write_text("weights: 1"), "damaged or of another kind"),
    "an npy file": (lambda path: path.write_bytes(b"\x93NUMPY"), "damaged or of another kind"),
    "another zip": (
        lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"),
        "damaged or of another kind",
    ),
    "a pickle": (_pickle, "damaged or of another kind"),
    "a pickle within": (_pickle_within, "damaged or of another kind"),
    "compressed": (_compressed, "compressed"),
    "a newer version": (_changed(version=2), "version 2, this dgmm reads up to 1; upgrade dgmm"),
    "another format": (_changed(format="other"), "does not say 'dgmm-model'"),
    "unknown covariances": (_changed(covariance_type="round"), "unknown covariances 'round'"),
    "covariances of another kind": (_changed(covariance_type="diag"), "not float64 of shape"),
    "other weights": (_changed(signed=False, weights=lambda w: w[::-1]), "checksum"),
    "half precision": (_changed(means=lambda m: m.astype("f2")), "float16"),
    "NaN": (_changed(means=lambda m: m * np.nan), "NaN or infinity"),
    "no record": (_changed(record=None), "no record"),
    "another record": (_changed(record={"params": {}}), "record of the fit lacks"),
    "parameters of nothing": (_changed(record={"params": {"memory__x": 1}}), "fit can't be used"),
    "a text for a number": (
        _changed(record=lambda record: {**record, "n_iter": "3"}),
        "its record has '3' for n_iter, which is no int",
    ),
    "too few names": (
        _changed(record=lambda record: {**record, "feature_names": ["a"]}),
        r"does not name each of the \d features",
    ),
    "statistics of another model": (
        _changed(center=lambda a: np.vstack([a, a[:1]]), sums=lambda s: np.vstack([s, 0 * s[:1]])),
        "not of the model's covariance model and shape",
    ),
    "a list for the covariances": (_changed(covariance_type=["full"]), "unknown covariances"),
    "a text for the version": (_changed(version="1"), "version 1"),
    "no checksum": (_changed(signed=False, sha256=None), "checksum"),
    "means of no component": (_changed(means=lambda m: m[:0]), "means are of shape"),
    "means of one dimension": (_changed(means=lambda m: m[0]), "means are of shape"),
    "weights beyond 1": (_changed(weights=lambda w: 2 * w), "not a distribution"),
    "statistics of a negative variance": (
        _changed(sums=lambda s: s * np.r_[np.ones(4), -np.ones(s.shape[1] - 4)]),
        "statistics are those of no rows",
    ),
    "a text among the bounds": (
        _changed(record=lambda record: {**record, "lower_bounds": ["1"]}),
        "lower_bounds that are no numbers",
    ),
    "another number in the record": (_changed(signed=False, record={"n_iter": 1}), "checksum"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_what_is_no_model_file_is_refused(
    file: Path, flaw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    make, message = FLAWS[flaw]
    make(file)
    with pytest.raises(ModelFileError, match=message):
        load(file)
    assert not Path("exploded").exists()


def _at(array: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    """With another number at one place."""
    changed = array.copy()
    changed[place] = value
    return changed


FORGED = {
    "negative covariances": {"covariances": lambda c: -c},
    "no covariances": {"covariances": lambda c: 0 * c},
    "a negative variance": {"covariances": lambda c: _at(c, (0,) * c.ndim, -1.0)},
    "no factors": {"precisions_cholesky": lambda f: 0 * f},
    "negative factors": {"precisions_cholesky": lambda f: -f},
    "other factors": {"precisions_cholesky": lambda f: 1.001 * f},
    "other covariances": {"covariances": lambda c: 0.999 * c},
    "infinite covariances": {"covariances": lambda c: c * np.inf},
    "factors of NaN": {"precisions_cholesky": lambda f: f * np.nan},
    "huge covariances": {"covariances": lambda c: c * 1e300},
    "tiny factors": {"precisions_cholesky": lambda f: f * 1e-300},
    "negative weights": {"weights": lambda w: _at(w + w[0] / (len(w) - 1), (0,), -w[0] * 0.5)},
    "weights of 2": {"weights": lambda w: w * 2},
    "weights of none": {"weights": lambda w: w * 0},
}
OF_MATRICES = {
    "lower factors": {"precisions_cholesky": lambda f: f.swapaxes(-1, -2).copy()},
    "an asymmetric covariance": {"covariances": lambda c: _at(c, (0,) * (c.ndim - 1) + (1,), 0.3)},
    "asymmetric by little": {
        "covariances": lambda c: _at(c, (0,) * (c.ndim - 1) + (1,), c.ravel()[1] + 1e-6)
    },
    "a factor below the diagonal": {
        "precisions_cholesky": lambda f: _at(f, (0,) * (f.ndim - 2) + (1, 0), 1e-5)
    },
}


@pytest.mark.parametrize("kind", COVARIANCE_MODELS)
def test_impossible_parameters_are_refused(tmp_path: Path, blobs: np.ndarray, kind: str) -> None:
    """Whatever the checksum says."""
    model = GaussianMixture(3, covariance_type=kind, random_state=0).fit(blobs)
    forged = {**FORGED, **(OF_MATRICES if kind in ("full", "tied") else {})}
    for changes in forged.values():
        model.save(tmp_path / "m.dgmm", overwrite=True)
        _changed(**changes)(tmp_path / "m.dgmm")
        with pytest.raises(ModelFileError, match=r"its (weights|covariances|precisions_cholesky)"):
            load(tmp_path / "m.dgmm")


@pytest.mark.parametrize("kind", COVARIANCE_MODELS)
@pytest.mark.parametrize("scale", [1e-100, 1e-6, 1.0, 1e100])
def test_what_was_fitted_is_no_forgery(tmp_path: Path, kind: str, scale: float) -> None:
    """Collapsed, narrow, correlated, far from zero, of very different scales: all can be saved."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 4)) @ np.diag([1.0, 1e-5, 1e5, 1.0])
    rows[:, 3] = rows[:, 0] + 1e-7 * rng.normal(size=400)
    rows[:100] = rows[:1]
    rows[100:200] += 1e7 * np.array([1.0, 1e-5, 1e5, 1.0])
    model = GaussianMixture(3, covariance_type=kind, random_state=0, reg_covar=0, max_iter=30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(scale * rows)
    model.save(tmp_path / "m.dgmm")
    np.testing.assert_array_equal(load(tmp_path / "m.dgmm").covariances_, model.covariances_)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"nothing\.dgmm does not exist"):
        dgmm.load(tmp_path / "nothing.dgmm")
