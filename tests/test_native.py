"""The compiled kernel is the NumPy kernel's twin."""

import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dgmm
from dgmm.kernels import (
    choice,
    complete,
    kernel,
    native,
    native_first_pass,
    native_outputs,
    outputs,
)
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import Complete, Marginal
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.noise_component import NoiseComponent
from dgmm.model.prior import Regularised
from dgmm.model.tails import Each, StudentTails

built = pytest.mark.skipif(native.compiled is None, reason="dgmm was built without a C compiler")

VARIANTS = range(len(native.compiled.variants()) if native.compiled else 0)
"""Each kind of vector that this processor has."""

SHAPES = [(1, 1, 5), (2, 3, 64), (3, 4, 1000), (8, 16, 1501), (13, 5, 700), (64, 7, 300)]
"""D, K and n: with and without features, components and rows that fill no vector."""

DTYPES = ["f8", "f4", "i4", ">f8"]

ROUNDING = 1e-12
"""Both sum up to n products of rounding 1e-16 each, in different orders."""


def mixture(
    covariance_model: CovarianceModel, components: int, n_features: int, rng: np.random.Generator
) -> Mixture:
    shape = covariance_model.shape(components, n_features)
    precisions = rng.uniform(0.5, 2.0, size=shape)
    if shape[-2:] == (n_features, n_features) and covariance_model.name in ("full", "tied"):
        root = 0.3 * rng.normal(size=shape)
        precisions = root @ root.swapaxes(-1, -2) + np.eye(n_features)
    weights = rng.dirichlet(np.ones(components))
    return Mixture.of(
        covariance_model, weights, rng.normal(size=(components, n_features)), precisions
    )


@built
@pytest.mark.parametrize(
    "variant", range(len(native.compiled.variants()) if native.compiled else 0)
)
@pytest.mark.parametrize("name", COVARIANCE_MODELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_twins(
    variant: int,
    name: str,
    shape: tuple[int, int, int],
    dtype: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each type of rows has weights or none, penalties or none, in all four ways among shapes."""
    first, second = SHAPES.index(shape), DTYPES.index(dtype)
    weighted, reg = (first + second) % 2 == 1, (0.0, 1e-3)[(first // 2 + second) % 2]
    monkeypatch.setattr(native, "VARIANT", variant)
    n_features, components, count = shape
    rng = np.random.default_rng(n_features)
    rows = (3 * rng.normal(size=(count, n_features)) + 1).astype(dtype)
    weights = rng.uniform(size=count)
    weights[::7] = 0
    block = Block(0, rows, weights if weighted else None)
    scale = np.exp2(
        rng.integers(-1, 2, size=n_features if name != "spherical" else 1).astype(float)
    )
    frame = Frame(rng.normal(size=n_features), np.broadcast_to(scale, n_features))
    prior = Regularised(np.full(n_features, reg))
    made = [
        mixture(COVARIANCE_MODELS[name], k, n_features, rng) for k in (components, components + 1)
    ]
    naturals = tuple(
        NaturalParameters.of(each, prior.penalties(each), None, centre=True) for each in made
    )
    expected = kernel.e_step(block, Given(frame, naturals)).parts
    found = native.e_step(block, Given(frame, naturals)).parts
    for mine, theirs in zip(found, expected, strict=True):
        spread = np.abs(theirs.sums).max()
        np.testing.assert_allclose(mine.sums, theirs.sums, rtol=0, atol=ROUNDING * spread)
        np.testing.assert_allclose(mine.objective, theirs.objective, rtol=ROUNDING)
        np.testing.assert_allclose(mine.log_likelihood, theirs.log_likelihood, rtol=ROUNDING)
        assert mine.weight == theirs.weight
        assert mine.rows == theirs.rows
        np.testing.assert_array_equal(mine.center, theirs.center)


def special(name: str, rng: np.random.Generator) -> list[Mixture]:
    """A mixture as it is, one with noise, and one of t distributions."""
    made = mixture(COVARIANCE_MODELS[name], 5, 3, rng)
    noise = NoiseComponent(0.3, np.full(3, -9.0), np.full(3, 18.0))
    rest = replace(made, weights=0.7 * made.weights, noise_component=noise)
    return [made, rest, replace(made, tails=StudentTails(rng.uniform(1, 20, size=5), Each()))]


@built
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", COVARIANCE_MODELS)
def test_row_outputs_are_those_of_numpy(
    variant: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows that fill no vector, of every type, far out, too; with noise, and as t's."""
    monkeypatch.setattr(native, "VARIANT", variant)
    rng = np.random.default_rng(0)
    rows = 3 * rng.normal(size=(701, 3)) + 1
    rows[-1] *= 1e3
    for made in special(name, rng):
        for dtype in ("f8", "f4", "i4", ">f8"):
            block = Block(0, rows.astype(dtype))
            for kind in native_outputs.KINDS:
                output = outputs.OUTPUTS[kind]  # type: ignore[index]
                one, other = (
                    outputs.RowOutputs(made, output, Complete(each), offset=0.5)(block)
                    for each in ("native", "numpy")
                )
                assert one.dtype == other.dtype
                np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)
        for way in ("native", "numpy"):  # what is said at once has the same bits
            of = outputs.RowOutputs(made, outputs.JUDGED, Complete(way), offset=0.5)
            apart = (replace(of, output=outputs.OUTPUTS[kind]) for kind in ("score", "proba"))
            np.testing.assert_array_equal(
                of(block), np.column_stack([each(block) for each in apart])
            )


@built
@pytest.mark.parametrize("kind", native_outputs.KINDS)
def test_outputs_of_rows_that_cannot_be_used(kind: str) -> None:
    """What is wrong is said as NumPy says it; rows with holes are judged as ever."""
    rng = np.random.default_rng(0)
    made = mixture(COVARIANCE_MODELS["full"], 5, 3, rng)
    rows = rng.normal(size=(300, 3))
    output = outputs.OUTPUTS[kind]  # type: ignore[index]
    whole = outputs.RowOutputs(made, output, Complete("native"))(Block(0, rows))
    for value, told in ((np.nan, "nan at row 217, column 2"), (1e200, "too far from the model")):
        bad = rows.copy()
        bad[210, 2] = value
        with pytest.raises(dgmm.DataError, match=told):
            outputs.RowOutputs(made, output, Complete("native"))(Block(7, bad))
    bad[210] = np.nan
    seen = outputs.RowOutputs(made, output, Marginal("native"))(Block(0, bad))
    np.testing.assert_array_equal(np.delete(seen, 210, 0), np.delete(whole, 210, 0))
    np.testing.assert_array_equal(seen[210], complete.NOTHING if kind == "labels" else np.nan)


@built
def test_no_rows_are_the_zero() -> None:
    natural = NaturalParameters.of(
        mixture(COVARIANCE_MODELS["full"], 3, 2, np.random.default_rng(0)), centre=True
    )
    frame = Frame(np.zeros(2), np.ones(2))
    (found,) = native.e_step(Block(0, np.empty((0, 2))), Given(frame, (natural,))).parts
    assert not found.sums.any()
    assert (found.objective, found.log_likelihood, found.weight, found.rows) == (0, 0, 0, 0)


@built
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tails", [False, True])
def test_no_product_is_subnormal(
    variant: int, tails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A component that all rows have all but left, at e^-650 each, has none, and costs no more."""
    monkeypatch.setattr(native, "VARIANT", variant)
    d = 40
    means = np.zeros((2, d))
    means[1, 0] = np.exp(650 / (d + 1)) if tails else np.sqrt(2 * 650)
    made = Mixture.of(COVARIANCE_MODELS["full"], np.full(2, 0.5), means, np.stack([np.eye(d)] * 2))
    heavy = StudentTails(np.ones(2), Each()) if tails else None
    natural = NaturalParameters.of(replace(made, tails=heavy), centre=True)
    rows = Block(0, np.full((50, d), 1e-3))
    (found,) = native.e_step(rows, Given(Frame(np.zeros(d), np.ones(d)), (natural,))).parts
    assert not found.sums[1].any()
    assert found.sums[0, 0] == 50


@built
@pytest.mark.parametrize("tails", [None, StudentTails(np.full(3, 2.0), Each())])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_named(value: float, tails: StudentTails | None) -> None:
    rows = np.zeros((700, 2))
    rows[600, 1] = value
    made = mixture(COVARIANCE_MODELS["diag"], 3, 2, np.random.default_rng(0))
    natural = NaturalParameters.of(replace(made, tails=tails), centre=True)
    frame = Frame(np.zeros(2), np.ones(2))
    with pytest.raises(dgmm.DataError, match=f"{value} at row 605, column 1"):
        native.e_step(Block(5, rows), Given(frame, (natural,)))


@built
@pytest.mark.parametrize("strategy", ["em", "auto"])
@pytest.mark.parametrize("name", COVARIANCE_MODELS)
def test_fits_agree(
    name: str, strategy: str, blobs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EM all along; "auto" in the end, as long steps on samples magnify rounding in its start."""
    fits = {}
    for kind in choice.KERNELS:
        monkeypatch.setenv("DGMM_KERNEL", kind)
        model = dgmm.GaussianMixture(4, covariance_type=name, random_state=0, precision="float64")
        fits[kind] = model.set_params(strategy=strategy).fit(blobs)
        assert fits[kind].fit_info_["kernel"].startswith(kind)
    one, other = fits["native"], fits["numpy"]
    np.testing.assert_allclose(one.means_, other.means_, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(one.lower_bound_, other.lower_bound_, rtol=1e-11)
    rtol = 1e-11 if strategy == "em" else 1e-8  # as its means
    np.testing.assert_allclose(one.lower_bounds_, other.lower_bounds_, rtol=rtol)


def test_a_kernel_that_is_not_there(blobs: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGMM_KERNEL", "fast")
    with pytest.raises(dgmm.UsageError, match="DGMM_KERNEL must be one of numpy, native"):
        dgmm.GaussianMixture(2).fit(blobs)
    monkeypatch.setenv("DGMM_KERNEL", "native")
    monkeypatch.setattr(native, "compiled", None)
    with pytest.raises(dgmm.UsageError, match=r"DGMM_KERNEL=native, but .*(clone|compiler)"):
        dgmm.GaussianMixture(2).fit(blobs)
    natural = NaturalParameters.of(
        mixture(COVARIANCE_MODELS["full"], 3, 3, np.random.default_rng(0)), centre=True
    )
    given = Given(Frame(np.zeros(3), np.ones(3)), (natural,))
    with pytest.raises(dgmm.UsageError, match="which this process lacks"):
        native.e_step(Block(0, blobs), given)


def test_a_slow_kernel_is_told_of(blobs: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DGMM_KERNEL", raising=False)
    monkeypatch.setattr(native, "compiled", None)
    with pytest.warns(UserWarning, match=r"the NumPy kernel is used.*(clone|compiler)"):
        model = dgmm.GaussianMixture(4, random_state=0).fit(blobs)
    assert model.fit_info_["kernel"] == "numpy"


@pytest.mark.parametrize("name", COVARIANCE_MODELS)
@pytest.mark.parametrize("by", choice.KERNELS)
@pytest.mark.parametrize("centre", [False, True])
def test_an_e_step_needs_no_more_than_travels(name: str, by: str, centre: bool) -> None:
    """The same bits from a form without what it does not read, which is half of a large one."""
    rng = np.random.default_rng(1)
    kernel_, block = choice.KERNELS[by], Block(0, rng.normal(size=(300, 16)))
    frame = Frame(np.zeros(16), np.ones(16))
    made = mixture(COVARIANCE_MODELS[name], 8, 16, rng)
    penalties = Regularised(np.full(16, 0.1)).penalties(made)
    whole = NaturalParameters.of(made, penalties, None, centre=centre)
    found = [kernel_.e_step(block, Given(frame, (each,))).parts[0] for each in (whole, whole.bare)]
    for one, other in zip(*(vars(each).values() for each in found), strict=True):
        assert np.array_equal(one, other)
    sizes = [len(pickle.dumps(each)) for each in (whole, whole.bare)]
    assert sizes[1] < sizes[0] * (0.55 if name == "full" and whole.includes_common else 1)


def test_it_runs_where_it_was_not_built() -> None:
    """Without the compiled part it falls back to NumPy, and says so."""
    main = "from dgmm.cli.commands import main; main()"
    hidden = f"import sys; sys.modules['dgmm.kernels._native'] = None; {main}"
    environment = {name: value for name, value in os.environ.items() if name != "DGMM_KERNEL"}
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", hidden, "--version"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "numpy kernel" in done.stdout


def warned(cwd: Path, *path: Path) -> str:
    """What a new process, which finds dgmm in ``cwd`` or on ``path``, says of its kernel."""
    environment = {name: value for name, value in os.environ.items() if name != "DGMM_KERNEL"}
    done = subprocess.run(
        [sys.executable, "-c", "from dgmm.kernels import choice; print(choice.chosen())"],
        cwd=cwd,
        env={**environment, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "numpy\n"
    return done.stderr


def copied(folder: Path, *, compiled: bool = False) -> Path:
    """A folder with dgmm in it, as it lies in a clone, or with its compiled kernel."""
    ignored = shutil.ignore_patterns("__pycache__", *([] if compiled else ["*.so"]))
    shutil.copytree(Path(dgmm.__file__).parent, folder / "dgmm", ignore=ignored)
    return folder


def test_why_there_is_no_compiled_kernel(tmp_path: Path) -> None:
    plain = copied(tmp_path / "site")
    assert "dgmm was installed without a C compiler" in warned(tmp_path, plain)
    clone = copied(tmp_path / "clone")
    (clone / "pyproject.toml").touch()
    told = warned(clone)
    assert f"Python took dgmm from the clone {clone}, whose kernel is not compiled" in told
    assert f"pip install -e {clone}" in told
    assert "without a C compiler" not in told


@built
def test_a_clone_in_the_way_of_what_is_installed(tmp_path: Path) -> None:
    clone = copied(tmp_path / "clone")
    (clone / "pyproject.toml").touch()
    site = copied(tmp_path / "site", compiled=True)
    record = site / "dgmm-0.1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: dgmm\nVersion: 0.1.0\n")
    told = warned(clone, site)
    assert f"and not the dgmm installed in {site}: start Python in another folder" in told
    assert f"pip install -e {clone}" in told


ASKED = """
import runpy, sys

measured = "published --data none.npz"
for words in (measured, "published --help", "--allow-numpy " + measured):
    sys.argv[1:] = words.split()
    print(f"{words}:", file=sys.stderr)
    try:
        runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        print(f"ended with {end.code}", file=sys.stderr)
"""


def test_benchmarks_measure_the_numpy_kernel_only_if_asked(tmp_path: Path) -> None:
    """Three commands, in one process, as most of the time goes into what they import."""
    clone = copied(tmp_path / "clone")
    (clone / "pyproject.toml").touch()
    shutil.copytree(Path(__file__).parent.parent / "benchmarks", clone / "benchmarks")
    (clone / "none.npz").touch()  # what is measured ends at once
    environment = {name: value for name, value in os.environ.items() if name != "DGMM_KERNEL"}
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        cwd=clone,
        env={**environment, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    refused, rest = done.stderr.split("published --help:\n")
    helped, allowed = rest.split("--allow-numpy published --data none.npz:\n")
    assert "ended with 2" in refused
    assert f"from the clone {clone}, whose kernel is not compiled" in refused
    assert "--allow-numpy" in refused
    assert helped == "ended with 0\n"
    assert "kernel is not compiled" not in allowed
    assert "ended with 1" in allowed


class Recorder:
    """Compiled code that notes what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            self.calls.append((name, list(args)))
            return getattr(native_module, name)(*args)

        return called


native_module = native.compiled

E_STEP = (
    *("rows", "weights", "shift", "scale", "whiten", "means", "precisions_cholesky", "constants"),
    *("penalties", "most", "ends", "sums", "objective", "plain", "space"),
)
MOMENTS = ("rows", "weights", "totals", "mean", "scatter", "low", "high", "space")
OUTPUTS = (
    *("rows", "shift", "scale", "whiten", "means", "precisions_cholesky", "constants", "tails"),
    *("labels", "scores", "shares", "space"),
)
CALLED = {
    "e_step": E_STEP,
    "first_pass": MOMENTS,
    "draw": ("numbers",),
    "row_outputs": OUTPUTS,
}
"""The arrays of each call, which come last, by name."""

WRITTEN = {"sums", "objective", "plain", "totals", "mean", "scatter", "low", "high", "numbers"}
WRITTEN |= {"labels", "scores", "shares"}


def calls(name: str, single: bool, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Any]]]:
    """Calls of compiled code, as they are made for weighted rows."""
    rng, recorder = np.random.default_rng(0), Recorder()
    monkeypatch.setattr(native, "compiled", recorder)
    rows = rng.normal(size=(50, 3)).astype("f4" if single else "f8")
    block = Block(0, rows, rng.uniform(0.5, 1.0, size=50))
    natural = NaturalParameters.of(
        mixture(COVARIANCE_MODELS[name], 4, 3, rng), centre=True, single=single
    )
    native.e_step(block, Given(Frame(np.zeros(3), np.ones(3)), (natural, natural)))
    native_first_pass.moments(block, name in ("full", "tied"))
    native_first_pass.draw(0, 10, 1, 2)
    for kind in native_outputs.KINDS:
        native_outputs.row_outputs(kind, block, Frame(np.zeros(3), np.ones(3)), natural.mixture)
    return [each for each in recorder.calls if len(each[1][-1])]  # with memory for tiles


def spoilt(name: str, array: np.ndarray) -> dict[str, Any]:
    """An array of that name in ways that can't be."""
    wrong = {"one more axis": array[None], "a list": array.tolist(), "nothing": None}
    if not array.size:  # what is not there has no type
        return wrong | {"one number": np.ones(1, array.dtype)}
    every_other = (slice(None, None, 2),) * array.ndim
    odd = np.zeros(array.nbytes + 1, np.uint8)[1:]
    wrong |= {
        "type": array.astype("f8" if array.dtype == "f4" else "f4"),
        "no axis": array.reshape(-1)[0],
    }
    if array.size > 1:
        wrong["gaps"] = np.zeros([2 * n for n in array.shape], array.dtype)[every_other]
    if array.itemsize > 1:
        wrong["byte order"] = array.astype(array.dtype.newbyteorder())
        wrong["alignment"] = odd.view(array.dtype).reshape(array.shape)
    for axis in range(array.ndim if name not in ("space", "numbers") else 0):
        wrong[f"axis {axis} longer"] = np.concatenate([array, array.take([0], axis)], axis)
        wrong[f"axis {axis} shorter"] = np.delete(array, 0, axis)
    if name in WRITTEN:
        wrong["read-only"] = array.copy()
        wrong["read-only"].flags.writeable = False
    return wrong


FIRST = {
    "rows": "weights|means|shift|mean|labels|scores|shares",
    "means": "ends|precisions_cholesky",
    "ends": "most",
}
"""Of arrays that have to fit others, these may be what does not fit."""


@built
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("name", COVARIANCE_MODELS)
def test_arrays_that_cannot_be_are_refused_by_name(
    name: str, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever compiled code is given, it reads and writes only within it."""
    made = calls(name, single, monkeypatch)
    assert {call for call, _ in made} == set(CALLED)
    for call, args in made:
        function, names = getattr(native_module, call), CALLED[call]
        function(*args)
        for position, argument in enumerate(names, len(args) - len(names)):
            told = "|".join([argument, *FIRST.get(argument, "").split()])
            for value in spoilt(argument, args[position]).values():
                with pytest.raises(ValueError, match=f"^({told}) must"):
                    function(*args[:position], value, *args[position + 1 :])


@built
def test_rows_whose_type_names_this_machines_byte_order() -> None:
    """As files do."""
    named = np.dtype("f8").newbyteorder("<" if sys.byteorder == "little" else ">")
    rows = np.random.default_rng(0).normal(size=(50, 3))
    assert memoryview(rows.view(named)).format != memoryview(rows).format
    one, other = (
        native_first_pass.moments(Block(0, each), False) for each in (rows, rows.view(named))
    )
    np.testing.assert_array_equal(one.mean, other.mean)


@built
def test_numbers_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where components end, which variant and structure, and how large a component's sums are."""
    (_, args), *_ = calls("full", False, monkeypatch)
    for position, value, told in (
        (0, 99, "no variant 99"),
        (0, -1, "no variant -1"),
        (1, 4, "no such structure"),
        (1, -1, "no such structure"),
        (2, True, "rows must hold numbers of type 'f', not 'd'"),
        (3, True, "means must hold numbers of type 'f', not 'd'"),
        (5, args[5] + 1, "width"),
        (6, args[6] + 1, "factor_size"),
        (-5, np.array([4, 9]), "ends must rise"),
        (-5, np.array([9, 8]), "ends must rise"),
        (-5, np.array([-1, 8]), "ends must rise"),
        (-5, np.array([0, 8]), "ends must rise"),
        (-5, np.array([4, 4]), "ends must rise"),
        (-5, np.empty(0, np.int64), "ends must rise"),
        (7, np.empty((50, 0)), "rows must have columns|means must have the shape"),
    ):
        wrong = list(args)
        wrong[position] = value
        with pytest.raises(ValueError, match=told):
            native_module.e_step(*wrong)
    native_module.e_step(*args)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_c_code_has_nothing_to_warn_of() -> None:
    """As C11 and C17, with GNU's vectors."""
    source = Path(native.__file__).with_name("_native.c")
    include = sysconfig.get_paths()["include"]
    strict = ("-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "-fsyntax-only")
    for standard in ("gnu11", "gnu17"):
        subprocess.run(["cc", f"-std={standard}", *strict, f"-I{include}", source], check=True)
