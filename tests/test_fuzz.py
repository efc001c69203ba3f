"""Thousands of inputs that nobody would give: an error with a message, or the right answer."""

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dgmm import DgmmError, GaussianMixture, SufficientStatistics, load
from dgmm.cli.commands import main
from dgmm.io import models, storage
from dgmm.io.checkpoint import FORMAT
from dgmm.model.covariance import COVARIANCE_MODELS

FILES = 8_000
LINES = 1_500
ARRAYS = 600


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model, statistics, a checkpoint and rows."""
    directory = tmp_path_factory.mktemp("fuzz")
    rows = np.random.default_rng(0).normal(size=(60, 2))
    model = GaussianMixture(2, random_state=0, checkpoint=directory / "passes").fit(rows)
    newest = max((directory / "passes").iterdir())
    newest.rename(directory / "passes" / "newest.dgmm")
    model.save(directory / "model.dgmm")
    model.sufficient_statistics_.save(directory / "rows.sums")
    np.save(directory / "rows.npy", rows)
    return directory


def _read_checkpoint(path: str) -> Any:
    return storage.read(path, FORMAT)


READERS: dict[str, Callable[[str], Any]] = {
    "model.dgmm": load,
    "rows.sums": SufficientStatistics.load,
    "passes/pass-000001.dgmm": _read_checkpoint,
    "passes/newest.dgmm": _read_checkpoint,
}


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Bits flipped, bytes put in, taken out, doubled or swapped, the end cut off."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 5)):
        at, size = rng.randrange(len(data) or 1), rng.randint(1, 64)
        match rng.randrange(6):
            case 0 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at:at] = rng.randbytes(size)
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = data[at : at + size]
            case 4:
                data[at : at + size] = rng.randbytes(len(data[at : at + size]))
            case _ if rng.random() < 0.2:
                del data[at:]
    return bytes(data)


def test_damaged_files(place: Path, tmp_path: Path) -> None:
    """Refused; or whole, where a bit was hit that says nothing."""
    rng, path, whole = random.Random(0), tmp_path / "damaged", 0
    contents = {name: (place / name).read_bytes() for name in READERS}
    for number in range(FILES):
        name = list(READERS)[number % len(READERS)]
        path.write_bytes(mutated(contents[name], rng))
        try:
            READERS[name](str(path))
        except DgmmError:
            continue
        whole += 1
        formats = {"model": models.MODEL, "rows.": "dgmm-sufficient-statistics"}
        format_ = formats.get(name[:5], FORMAT)
        found, expected = (storage.read(str(each), format_) for each in (path, place / name))
        assert found[1] == expected[1]
        for key, value in expected[0].items():
            np.testing.assert_array_equal(found[0][key], value)
    assert whole < FILES // 10


WORDS = [
    *("fit", "select", "update", "predict", "score", "show", "plan", "rows.npy", "model.dgmm"),
    *("-k", "-o", "-m", "--sample-weight", "--init-params", "--strategy", "--random-state"),
    *("--tol", "--max-iter", "--covariance-type", "--criterion", "--n-init"),
    *("--reg-covar", "--precision", "--checkpoint", "--no-resume", "--threads", "--memory"),
    *("--cache", "--missing-chunks", "--json", "--quiet"),
    *("0", "1", "2", "-1", "1e999", "nan", "inf", "1GiB", "none", "auto", "diag", "full", "em"),
    *("", " ", "..", "2..1", "a,b", "\N{SNOWMAN}", "/nonexistent/x", "x" * 300, "s3://", "out"),
    *("file:///", "http://[", "--help", "--", "-", "rows.npy/0", "rows.sums", "passes", "bic"),
]


def test_command_lines(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exit code that is told of, never a traceback."""
    rng = random.Random(1)
    for name in ("model.dgmm", "rows.npy", "rows.sums"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    commands = WORDS[:7]
    for _ in range(LINES):
        command = rng.choice(commands)
        words = [command, *rng.choices(WORDS, k=rng.randint(0, 7))]
        if command in ("fit", "plan") and rng.random() < 0.5:
            words[1:1] = ["rows.npy", "-k", "2"]
        done = CliRunner().invoke(main, words)
        assert done.exit_code in (0, 2, 3), (words, done.output, done.exception)
        assert "Traceback" not in done.output
        if done.exit_code:
            assert done.output.strip()


numbers = st.one_of(
    st.floats(width=64, allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 1.0, -1.0, 1e300, -1e300, 1e-300, 5e-324, 1e16, np.nan, np.inf]),
    st.integers(-3, 3).map(float),
)


@settings(max_examples=ARRAYS, deadline=None)
@given(
    rows=arrays.arrays(
        st.sampled_from(["f8", "f4", "f2", "i8", "i2", "u1", "?"]),
        arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=7),
    )
    | arrays.arrays("f8", st.tuples(st.integers(1, 9), st.integers(1, 3)), elements=numbers),
    components=st.integers(1, 4),
    kind=st.sampled_from(sorted(COVARIANCE_MODELS)),
    strategy=st.sampled_from(["auto", "em"]),
)
def test_small_arrays(rows: np.ndarray, components: int, kind: str, strategy: str) -> None:
    """An error on purpose, or numbers that are finite, and densities that are right."""
    model = GaussianMixture(
        components, covariance_type=kind, strategy=strategy, random_state=0, max_iter=20
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.fit(rows)
        except (ValueError, TypeError):  # scikit-learn's checks raise these, and DataError is one
            return
    for name in ("weights_", "means_", "covariances_", "precisions_"):
        assert np.isfinite(getattr(model, name)).all()
    assert np.isfinite(model.lower_bound_)
    assert model.weights_.sum() == pytest.approx(1.0)
    labels = model.predict(rows)
    assert ((labels >= 0) & (labels < components)).all()
