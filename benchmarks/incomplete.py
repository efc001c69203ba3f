"""A pass over rows with holes or errors: in passes over complete rows, and beside peers."""

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import zarr
from numpy.typing import NDArray

from benchmarks import data, machine, process
from benchmarks.contender import (
    HOLED,
    OURS,
    Contender,
    Program,
    Unavailable,
    contender,
    python_option,
)
from benchmarks.match import save
from benchmarks.table import Cell, mebibytes, percent, show
from benchmarks.timing import ROUNDS, Seconds, alternate
from dgmm.engine import one_blas_thread
from dgmm.kernels import choice
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import OBSERVATIONS, Noisy
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture

SHAPES = ((8, 16), (16, 16), (32, 16))
SHARE = 0.3
"""Of the values are missing."""

PATTERNS = {"8 patterns": 8, "1,000 patterns": 1000, "all distinct": None}
NOISES = ("diagonal noise", "full noise")
ERRORS = (0.1, 0.5)
"""Standard deviations of errors, where those of components are from 0.5 to 1.5."""

FAR = 3.0
"""How much farther apart components are, where a row has a share in few."""

PEERS_CASE = (20_000, 8, 16)
SECONDS, MOST = 4.0, 100
"""How long the iterations of one measurement should take, about, and how many there are at most."""

MEMORY_FEATURES, MEMORY_COMPONENTS = 24, 8

NOTE = """\
A pass of the E-step over a block of float32 rows, on one thread, {share:.0%} of whose values are
missing, each feature by chance. ns are nanoseconds per row; "times" is the ratio to the complete
rows in the same round. With few patterns, the rows of one are complete rows of fewer features;
where all rows have patterns of their own, each needs factors of its own for each component, D^3 / 3
flops and more.
Noise is variances or covariances of each row's own, of errors from {low} to {high}, beside complete
rows; "far" are components three times as far apart, so that a row has a share in few. In the others
it has one in most, and with full covariances each such pair then needs a matrix of its own: its
factor (D^3 / 3 flops), and for the sums its inverse (2 D^3 / 3), beside 2 D^2 for complete rows. So
D / 2 times as many flops, 4, 8 and 16 here, are the least; the factor is made twice, as to keep all
takes more room than the cache has: 2 D / 3 times as many."""

PEERS_NOTE = """\
Seconds of one EM iteration over {rows:,} rows x {features}, K = {components}, float64, on one
thread; {share:.0%} of the values are missing, by chance: a long run less a short one. astroML's is
extreme deconvolution, the error of a missing value without end; pomegranate and StepMix know
diagonal covariances only, where rows are incomplete. scikit-learn's mixture takes no such rows."""


def holed(rows: NDArray[Any], patterns: int | None, seed: int = 0) -> NDArray[Any]:
    """``rows`` (n, D) with values missing by chance, in so many patterns, or each in its own."""
    rng = np.random.default_rng(seed)
    holes = rng.random((patterns or len(rows), rows.shape[1])) < SHARE
    if patterns is not None:
        holes = holes[rng.integers(0, patterns, len(rows))]
    return np.where(holes, np.asarray(np.nan, rows.dtype), rows)


def noise(rows: int, n_features: int, full: bool) -> NDArray[Any]:
    """Variances of the errors of rows, (n, D), or covariances (n, D, D) of about that size."""
    rng = np.random.default_rng(2)
    if not full:
        return rng.uniform(*ERRORS, (rows, n_features)) ** 2
    roots = rng.normal(size=(rows, n_features, n_features)) / np.sqrt(n_features)
    roots *= rng.uniform(*ERRORS, (rows, 1, 1))
    return roots @ roots.swapaxes(1, 2) + ERRORS[0] ** 2 * np.eye(n_features)


def passes(
    kind: str, n_features: int, components: int, rows: int, spread: float
) -> dict[str, Callable[[], Any]]:
    """An E-step over complete rows, over those of each number of patterns, and with noise."""
    known = data.mixture(components, n_features)
    known = known._replace(means=spread * known.means)
    covariances = data.shaped(kind, known.covariances)
    model = COVARIANCE_MODELS[kind]
    mixture = Mixture.of_covariances(model, known.weights, known.means, covariances)
    frame = Frame.of(*mixture.moments(), model)
    natural = NaturalParameters.of(frame.enter(mixture), centre=True, per_component=True)
    observation = OBSERVATIONS["marginalize"](choice.chosen())
    given = Given(frame, (observation.given(natural),))
    whole = data.draw(known, rows, 1)
    blocks = {"complete": whole}
    blocks |= {name: holed(whole, patterns) for name, patterns in PATTERNS.items()}
    named = {
        name: partial(observation.e_step, Block(0, each), given) for name, each in blocks.items()
    }
    seen = Noisy(choice.chosen())
    for name in NOISES:
        block = Block(0, whole, noise=noise(rows, n_features, name == "full noise"))
        named[name] = partial(seen.e_step, block, Given(frame, (seen.given(natural),)))
    for each in named.values():
        each()  # code is loaded and buffers made before it counts
    return named


def line(
    kind: str, shape: tuple[int, int], rows: int, rounds: int, spread: float = 1.0
) -> list[Cell]:
    """The table's line for a shape."""
    n_features, components = shape
    named = passes(kind, n_features, components, rows, spread)
    timings = alternate(named, rounds, f"incomplete {kind} {n_features}, {components}")
    times = [timings.ratio(name, "complete") for name in (*PATTERNS, *NOISES)]
    ns = 1e9 * timings.seconds("complete") / rows
    far = ", far" if spread > 1 else ""
    return [f"{n_features}, {components}{far}", kind, rows, ns, *times]


def write(place: Path, case: tuple[int, int, int]) -> None:
    """Write a case's rows, of which values are missing, and its start to a directory."""
    rows, n_features, components = case
    known = data.mixture(components, n_features)
    whole = data.draw(known, rows, 1)
    save(place, holed(whole, None), data.start_near(known, whole))


def against(
    peer: Program, kind: str, place: Path, pythons: dict[str, str], rounds: int
) -> list[Cell]:
    """The table's line for a peer; raises ``Unavailable``."""
    how = (place, "float64", kind, 1, 300.0)
    with (
        contender(OURS, pythons[OURS.name], *how) as ours,
        contender(peer, pythons[peer.name], *how) as theirs,
    ):
        named = {each.program.name: _timed(each) for each in (ours, theirs)}
        timings = alternate(named, rounds, f"incomplete {peer.name}")
        both = [timings.seconds(each) for each in named]
        return [peer.name, theirs.version, kind, *both, timings.ratio(peer.name, OURS.name)]


def _timed(each: Contender) -> Callable[[], Seconds]:
    """One iteration's time by as many as take some seconds, as a first trial tells."""
    iterations = int(np.clip(SECONDS / max(each.each(1)[0], 1e-3), 1, MOST))
    return lambda: Seconds(each.each(iterations)[0])


def peak(rows: int) -> list[Cell]:
    """The line of a whole ``dgmm fit``: the peak of its memory, and that of the plan."""
    with tempfile.TemporaryDirectory() as place:
        store = Path(place) / "rows.zarr"
        shape, chunk = (rows, MEMORY_FEATURES), rows // 20
        array = zarr.create_array(str(store), shape=shape, chunks=(chunk, shape[1]), dtype="f4")
        for start in range(0, rows, chunk):
            part = np.random.default_rng(start).normal(size=(chunk, shape[1])).astype("f4")
            array[start : start + chunk] = holed(part, None, start)
        options = ("-k", MEMORY_COMPONENTS, "--missing", "marginalize", "--json")
        plan = json.loads(process.dgmm("plan", store, *options).output)
        words = ("-o", f"{place}/m.dgmm", "--strategy", "em", "--max-iter", 1, "--quiet")
        done = process.dgmm("fit", store, *options, *words)
    planned = plan["peak_bytes"]
    return [
        f"{rows:,} x {shape[1]}, {MEMORY_COMPONENTS}",
        *map(mebibytes, (plan["pass_bytes"], planned, done.peak_bytes)),
        percent(done.peak_bytes / planned),
    ]


@click.command()
@python_option
@click.option("--rounds", default=ROUNDS, show_default=True, help="Of each line.")
@click.option("--quick", is_flag=True, help="Few rows and one shape, to see that it works.")
def incomplete(pythons: dict[str, str], rounds: int, quick: bool) -> None:
    """What holes and errors cost: a pass over such rows against one over complete rows.

    For each shape D, K: rows of 8 patterns of holes, of 1,000, and of patterns that are all
    distinct, and rows with variances or covariances of errors, as multiples of complete rows. And
    an EM iteration against those of peers.

    Example: python -m benchmarks incomplete --python stepmix=envs/stepmix/bin/python
    """
    count = 2000 if quick else 40_000
    shapes = SHAPES[:1] if quick else SHAPES
    header = [
        "D, K",
        "covariances",
        "rows",
        "complete, ns",
        *(f"{name}, times" for name in (*PATTERNS, *NOISES)),
    ]
    title = f"Rows with holes and errors ({choice.described(choice.chosen())})"
    with one_blas_thread():
        lines = [line(kind, each, count, rounds) for kind in ("full", "diag") for each in shapes]
        lines += [line("full", each, count, rounds, FAR) for each in shapes]
    low, high = ERRORS
    show(title, header, lines, NOTE.format(share=SHARE, low=low, high=high))
    _, n_features, components = PEERS_CASE
    case = (2000 if quick else PEERS_CASE[0], n_features, components)
    words = dict(zip(("rows", "features", "components"), case, strict=True))
    with tempfile.TemporaryDirectory() as place:
        write(Path(place), case)
        show(
            "Rows with holes, against peers",
            ["peer", "version", "covariances", "dgmm, s", "peer, s", "times"],
            _against_all(Path(place), pythons, rounds),
            PEERS_NOTE.format(share=SHARE, **words),
        )
    show(
        "Rows of patterns that are all distinct: peak memory of dgmm fit",
        ["rows x columns, K", "rows take", "plan", "measured", "of the plan"],
        [peak(10_000 if quick else 1_000_000)],
    )
    machine.measure(rounds=rounds)


def _against_all(place: Path, pythons: dict[str, str], rounds: int) -> Iterator[list[Cell]]:
    for peer, kind in HOLED.values():
        try:
            yield against(peer, kind, place, pythons, rounds)
        except Unavailable as error:
            yield [peer.name, "", kind, None, str(error), None]
