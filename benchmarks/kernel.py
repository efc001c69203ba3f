"""The kernels alone, on one thread, against what the machine could do."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import click
import numpy as np

from benchmarks import data, machine
from benchmarks.machine import Probe
from benchmarks.table import Cell, percent, show
from benchmarks.timing import ROUNDS, Timings, alternate
from dgmm.engine import one_blas_thread
from dgmm.kernels.choice import KERNELS, described
from dgmm.kernels.native import compiled
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.features import Linear
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.prior import Regularised

SHAPES = ((4, 8), (8, 16), (16, 16), (32, 16), (64, 64))
NAMES = ("full", "diag", "spherical", "tied")
PRECISIONS = ("float64", "float32")
REG_COVAR = 1e-6

NOTE = """\
ns are nanoseconds per row, shares are of the limit in the same round. The limit is the larger of
the arithmetic (flops at the measured peak of the matrix product of that precision, and K times the
measured numpy.exp) and the memory (reading a row once); "by" says which. "products" is the
arithmetic without exp. Where NumPy's exp is slow, a kernel with a faster one may pass 100 %.
Flops: {flops}."""

FLOPS = {
    "full": "4 K P, P = 1 + D + D (D + 1) / 2",
    "diag": "4 K P, P = 1 + 2 D",
    "spherical": "4 K P, P = 2 + D",
    "tied": "4 K P + D (D + 1), P = 1 + D, the second term to whiten a row",
}

Seconds = dict[str, float]
"""The times of a round."""


@dataclass(frozen=True)
class Case:
    """A shape under a structure."""

    covariance_model: CovarianceModel
    n_features: int
    components: int

    @property
    def flops(self) -> float:
        """What a row takes, at least."""
        features, n_features = self.covariance_model.features, self.n_features
        products = 4 * self.components * features.width(n_features)
        whitening = n_features * (n_features + 1) * (features == Linear())
        return float(products + whitening)

    @property
    def target(self) -> str:
        """The share to reach; only full covariances have one."""
        if self.covariance_model.name != "full":
            return "-"
        return "70 %" if self.components * self.n_features >= 512 else "50 %"

    def rows(self, seconds: float) -> int:
        """A block as dgmm would read it, or what takes some ``seconds`` at 10 GF/s."""
        block = data.CHUNK_BYTES // (8 * self.n_features)
        return int(min(block, max(2048, seconds * 1e10 / self.flops)))


@dataclass(frozen=True)
class Limit:
    """The seconds that a row takes at least, at the speed of a round's probes."""

    case: Case
    real: str
    probes: dict[str, Probe]

    def products(self, seconds: Seconds) -> float:
        """The matrix products."""
        name = f"{self.real} product"
        return self.case.flops / self.probes[name].rate(seconds[name])

    def arithmetic(self, seconds: Seconds) -> float:
        """The products and exp."""
        name = f"{self.real} exp"
        exp = self.case.components / self.probes[name].rate(seconds[name])
        return self.products(seconds) + exp

    def reading(self, seconds: Seconds) -> float:
        """The row, from memory."""
        size = self.case.n_features * np.dtype(self.real).itemsize
        return size / self.probes["memory"].rate(seconds["memory"])

    def __call__(self, seconds: Seconds) -> float:
        return max(self.arithmetic(seconds), self.reading(seconds))


def kernels() -> list[str]:
    """The kernels of this installation."""
    return [name for name in KERNELS if name != "native" or compiled]


def fitted(case: Case, known: data.Known) -> tuple[Frame, Mixture]:
    """The mixture ``known`` with covariances of the case's structure, in its frame."""
    covariance_model = case.covariance_model
    covariances = data.shaped(covariance_model.name, known.covariances)
    mixture = Mixture.of_covariances(covariance_model, known.weights, known.means, covariances)
    frame = Frame.of(*mixture.moments(), covariance_model)
    return frame, frame.enter(mixture)


def runs(case: Case, rows: int) -> dict[str, Callable[[], object]]:
    """Each kernel in each precision, on a block of ``rows`` rows."""
    known = data.mixture(case.components, case.n_features)
    frame, mixture = fitted(case, known)
    named: dict[str, Callable[[], object]] = {}
    for real in PRECISIONS:
        block = Block(0, data.draw(known, rows, 1, real))
        for name in kernels():
            centre, single = KERNELS[name].centres, real == "float32"
            penalties = Regularised(REG_COVAR / frame.scale**2).penalties(mixture)
            natural = NaturalParameters.of(mixture, penalties, None, centre, single)
            given = Given(frame, (natural,))
            named[f"{name} {real}"] = partial(KERNELS[name].e_step, block, given)
            named[f"{name} {real}"]()  # code is loaded and buffers made before it counts
    return named


def line(limit: Limit, rows: int, timings: Timings) -> list[Cell]:
    """The table's line for a case in one precision."""
    case, real = limit.case, limit.real
    by = timings.figure(limit.reading) > timings.figure(limit.arithmetic)
    cells: list[Cell] = [
        f"{case.n_features}, {case.components}",
        real,
        f"{1e9 * timings.figure(limit):.3g} by {'memory' if by else 'arithmetic'}",
        1e9 * timings.figure(limit.products),
    ]
    for name in kernels():
        share = timings.figure(lambda s, n=f"{name} {real}": rows * limit(s) / s[n])  # type: ignore[misc]
        cells += [1e9 * timings.seconds(f"{name} {real}") / rows, percent(share)]
    return [*cells, case.target]


@click.command()
@click.option(
    "--covariance-type",
    "covariance_models",
    multiple=True,
    type=click.Choice(NAMES),
    help="Only this one; may be given more than once.",
)
@click.option("--rounds", default=ROUNDS, show_default=True, help="Of each shape.")
@click.option("--quick", is_flag=True, help="Two shapes on few rows, to see that it works.")
def kernel(covariance_models: tuple[str, ...], rounds: int, quick: bool) -> None:
    """The kernels alone against the machine.

    On one thread. For each structure and shape D, K: nanoseconds per row of both kernels in both
    precisions, and the share that they reach of the limit that the machine sets.

    Example: python -m benchmarks kernel --covariance-type full
    """
    probes, seen = machine.arithmetic(), []
    each = [word for name in kernels() for word in (f"{name}, ns", "share")]
    header = ["D, K", "precision", "limit, ns", "products, ns", *each, "target"]
    with one_blas_thread():
        for name in covariance_models or NAMES:
            lines = []
            for n_features, components in SHAPES[1:3] if quick else SHAPES:
                case = Case(COVARIANCE_MODELS[name], n_features, components)
                rows = case.rows(0.02 if quick else 1.0)
                named = {n: p.run for n, p in probes.items()} | runs(case, rows)
                seen.append(alternate(named, rounds, f"kernel {name} {n_features}, {components}"))
                lines += [line(Limit(case, r, probes), rows, seen[-1]) for r in PRECISIONS]
            title = f"Kernels, {name} covariances ({', '.join(map(described, kernels()))})"
            show(title, header, lines, NOTE.format(flops=FLOPS[name]))
    machine.report(probes, Timings(tuple(each for timings in seen for each in timings.rounds)))
