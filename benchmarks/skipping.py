"""What leaving out saves: each pair of row and component, or those alone that matter."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import data, machine
from benchmarks.patches import EDGE, Photographs
from benchmarks.table import Cell, show
from benchmarks.timing import ROUNDS, Seconds, Timings, alternate, say
from dgmm import GaussianMixture
from dgmm.engine import one_blas_thread
from dgmm.kernels import native
from dgmm.kernels.choice import KERNELS, described
from dgmm.kernels.native_outputs import KINDS
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import Complete
from dgmm.kernels.outputs import OUTPUTS, RowOutputs
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture

SHAPES = ((8, 16), (32, 16), (64, 64), (64, 200))
PRECISIONS = ("float64", "float32")
BLOCK = 1 << 14
"""Rows of the block that is timed."""
BRIEF = 256
"""Of patches, the rows that NumPy judges: components as narrow as those take it long."""

HEADER = ["rows", "D, K", "precision", "all, us", "left out, us", "ratio", "objective", "counts"]
NOTE = """\
us are microseconds of the processor a row, of an E-step with its sums on one thread: "all" with
every pair of row and component, "left out" with those that matter. "objective" is how far the two
are apart in the mean over rows, "counts" in a component's rows at most."""
OUTPUTS_HEADER = ["rows", "D, K", "output", "NumPy, us", "all, us", "left out, us"]
OUTPUTS_HEADER += ["NumPy / left out", "all / left out"]
OUTPUTS_NOTE = "The same of what a mixture says of each row, in double precision."


@dataclass(frozen=True)
class Case:
    """A mixture, and rows that it is fitted to, or drawn from."""

    name: str
    mixture: Mixture
    rows: NDArray[np.floating]
    brief: int = BLOCK

    @property
    def shape(self) -> str:
        """D and K."""
        return f"{self.mixture.n_features}, {self.mixture.components}"

    def e_step(self, real: str) -> Callable[[], object]:
        """The statistics of the rows, in a precision."""
        frame = Frame.of(*self.mixture.moments(), self.mixture.covariance_model)
        inside = frame.enter(self.mixture)
        natural = NaturalParameters.of(inside, centre=True, single=real == "float32")
        block = Block(0, self.rows.astype(real))
        return partial(KERNELS["native"].e_step, block, Given(frame, (natural,)))

    def outputs(self, kernel: str, kind: str) -> Callable[[], object]:
        """An output of the rows, by a kernel."""
        rows = self.rows[: self.brief] if kernel == "numpy" else self.rows
        of = RowOutputs(self.mixture, OUTPUTS[kind], Complete(kernel))  # type: ignore[index]
        return partial(of, Block(0, rows))


def timed(run: Callable[[], object], skips: bool = True) -> Callable[[], Seconds]:
    """``run``, with what does not matter left out or not, in seconds of the processor."""

    def measured() -> Seconds:
        native.SKIPS = skips
        try:
            began = time.thread_time()
            run()
            return Seconds(time.thread_time() - began)
        finally:
            native.SKIPS = True

    return measured


def apart(run: Callable[[], Any], rows: int) -> tuple[str, str]:
    """How far the objective (in the mean over ``rows``) and counts are apart, with and without."""
    native.SKIPS = False
    try:
        one = run().parts[0]
    finally:
        native.SKIPS = True
    two = run().parts[0]
    counts = np.abs(one.sums[:, 0] - two.sums[:, 0]).max()
    return f"{abs(one.objective - two.objective) / rows:.1e}", f"{counts:.1e}"


def synthetic(n_features: int, components: int, rows: int) -> Case:
    """Overlapping components, and rows of them."""
    known = data.mixture(components, n_features)
    model = COVARIANCE_MODELS["full"]
    mixture = Mixture.of_covariances(model, known.weights, known.means, known.covariances)
    return Case("synthetic", mixture, data.draw(known, rows, 1, "float64"))


def trained(images: Path, components: int, rows: int, passes: int) -> Case:
    """Patches of photographs, and a mixture after some passes of EM over ``rows`` of them."""
    photographs, rng = Photographs.read(images, "train"), np.random.default_rng(0)
    numbers = rng.choice(photographs.count, rows, replace=False).astype(np.int32)
    patches = photographs.rows(numbers, rng.random((rows, EDGE * EDGE)))
    say(f"{passes} passes over {rows:,} patches, K = {components}")
    start = GaussianMixture(components, strategy="em", max_iter=passes, random_state=0)
    *_, last = start.fit_passes(patches)
    return Case("patches", last.mixture, patches[:BLOCK], BRIEF)


def line(case: Case, real: str, rounds: int) -> list[Cell]:
    """The line of an E-step."""
    run = case.e_step(real)
    title = f"skipping {case.name} {case.shape} {real}"
    seen = alternate({"all": timed(run, False), "left out": timed(run)}, rounds, title)
    micro = 1e6 / len(case.rows)
    return [
        *(case.name, case.shape, real),
        *(micro * seen.seconds(each) for each in ("all", "left out")),
        f"{seen.ratio('all', 'left out'):.2f}",
        *apart(run, len(case.rows)),
    ]


def outputs_line(case: Case, kind: str, rounds: int) -> list[Cell]:
    """The line of an output."""
    run, plain = case.outputs("native", kind), case.outputs("numpy", kind)
    named = {"numpy": timed(plain), "all": timed(run, False), "left out": timed(run)}
    seen = alternate(named, rounds, f"{kind} {case.name} {case.shape}")
    micro, brief = 1e6 / len(case.rows), len(case.rows) / min(case.brief, len(case.rows))
    return [
        *(case.name, case.shape, kind),
        brief * micro * seen.seconds("numpy"),
        *(micro * seen.seconds(each) for each in ("all", "left out")),
        f"{brief * seen.ratio('numpy', 'left out'):.1f}",
        f"{seen.ratio('all', 'left out'):.2f}",
    ]


@click.command()
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="As for patches; without it, synthetic rows alone.",
)
@click.option(
    "-k", "--n-components", "counts", multiple=True, type=int, help="Of patches. [default: 200]"
)
@click.option("--rows", default=100_000, show_default=True, help="Patches to train on.")
@click.option("--passes", default=12, show_default=True, help="Of EM, over these.")
@click.option("--rounds", default=ROUNDS, show_default=True, help="Of each case.")
@click.option("--quick", is_flag=True, help="Two shapes on few rows, to see that it works.")
def skipping(
    images: Path | None,
    counts: tuple[int, ...],
    rows: int,
    passes: int,
    rounds: int,
    quick: bool,
) -> None:
    """A pass, and outputs, with and without what contributes nothing.

    On one thread, the compiled kernel, full covariances: patches of photographs under mixtures that
    were trained on them, and overlapping synthetic rows, where there is little to leave out.

    Example: python -m benchmarks skipping --images bsds300.npz -k 200 -k 1000
    """
    block = BLOCK // 4 if quick else BLOCK
    cases = [synthetic(*shape, block) for shape in (SHAPES[:2] if quick else SHAPES)]
    if images is not None:
        cases += [trained(images, each, rows, passes) for each in counts or (200,)]
    with one_blas_thread():
        lines = (line(case, real, rounds) for case in cases for real in PRECISIONS)
        show(f"An E-step, {described('native')}", HEADER, lines, NOTE)
        lines = (outputs_line(case, kind, rounds) for case in cases for kind in KINDS)
        show("Outputs", OUTPUTS_HEADER, lines, OUTPUTS_NOTE)
    probes = machine.arithmetic()
    runs = {name: probe.run for name, probe in probes.items()}
    machine.report(probes, Timings(alternate(runs, rounds, "the machine").rounds))
