"""Data on which formulas fail, fitted by dgmm, scikit-learn and Spark, against sixty digits."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import click
import numpy as np
import sklearn.mixture

import dgmm
from benchmarks.contender import Program, Unavailable, contender, python_option
from benchmarks.exact import Array, Parameters, em, error
from benchmarks.table import Cell, show
from benchmarks.timing import say

ITERATIONS = 4
PATIENCE = 120.0
"""Seconds that Spark may take for a case."""

SPARK = Program("spark", "spark_mllib", "pip install pyspark pyarrow (and Java 17)")

NOTE = f"""\
{ITERATIONS} iterations of EM from the same start, with reg_covar = 0. The first number is the
largest error of a parameter: of a weight relative to it, of means and covariances in units of the
component's own spread, which in its narrowest direction is a small one. The second is the relative
error of the mean log-likelihood that the program tells; Spark tells none. "float64" is the first
number for the right answer itself, stored in double precision: no program that returns doubles does
better. Where the likelihood has no bound, what is compared is the part of the parameters that the
data decide. "singular" and "empty" are components that the program's warning names; where there
is no answer to compare with, "says nothing" is finite parameters without a warning."""


@dataclass(frozen=True)
class Case:
    """Rows, and where to start.

    Attributes
    ----------
    rows : (N, D)
    means, variances : (K, D)
        Of the start; the weights are equal.
    kind : str
        Of the covariances.
    row_weights : (N,), optional
    bounded : bool
        Whether there is an answer that doubles can hold.
    same_as : Case, optional
        Has the right answer for ``components`` and ``columns``, where others have none.
    """

    rows: Array
    means: Array
    variances: Array
    kind: str = "full"
    row_weights: Array | None = None
    bounded: bool = True
    same_as: "Case | None" = None
    components: tuple[int, ...] = (0, 1)
    columns: tuple[int, ...] = (0, 1)

    @property
    def start(self) -> Parameters:
        """Where to start."""
        covariances = self.variances
        if self.kind == "full":
            covariances = covariances[:, :, None] * np.eye(covariances.shape[1])
        return Parameters(np.full(len(self.means), 1 / len(self.means)), self.means, covariances)

    @property
    def right(self) -> Parameters | None:
        """The right answer."""
        if self.same_as is not None:
            return self.same_as.right
        if not self.bounded:
            return None
        weights = np.ones(len(self.rows)) if self.row_weights is None else self.row_weights
        return em(self.kind, self.rows, weights, self.start, ITERATIONS)


# ---------------------------------------------------------------- data


def base(count: int = 60, n_features: int = 2) -> Array:
    """Two overlapping groups; multiples of 2^-12, so that a shift by 1e12 rounds nothing."""
    rng = np.random.default_rng(12)
    groups = np.where(np.arange(count) % 3, 1.5, -1.5)[:, None]
    rows = rng.normal(size=(count, n_features)) @ (np.eye(n_features) + 0.3) + groups
    return np.round(rows * 2**12) / 2**12


def plain(rows: Array, by: Any = 1.0, shift: float = 0.0, **more: Any) -> Case:
    """Rows of two columns like ``base``'s: times ``by``, and shifted."""
    by = np.ones(2) * by
    means, variances = np.array([[-1.0, -1], [1, 1]]) * by + shift, np.ones((2, 2)) * by**2
    return Case(rows * by.astype(rows.dtype) + rows.dtype.type(shift), means, variances, **more)


def turned(condition: float) -> Case:
    """The covariance of all rows has this condition number, in no column's direction."""
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    thin = np.random.default_rng(2).normal(size=60) / np.sqrt(condition)
    rows = np.stack([base()[:, 0], thin], axis=1) @ turn.T
    return Case(rows, rows[[0, 7]], np.ones((2, 2)))


def narrow(by: float) -> Case:
    """Twenty rows within ``by`` of each other, among forty spread over 1."""
    near = 0.7 + by * np.random.default_rng(5).normal(size=(20, 2))
    means, variances = np.array([[0.0, 0], [0.7, 0.7]]), np.array([[1.0, 1], [1e-6, 1e-6]])
    return Case(np.concatenate([base(40), near]), means, variances)


def duplicated() -> Case:
    """Few distinct rows, most of them many times."""
    return plain(np.repeat(base(12), [9, 1, 1, 1, 12, 3, 1, 2, 1, 1, 20, 8], axis=0))


def constant() -> Case:
    """The constant column's density is the same for all rows and components, so it cancels."""
    rows, means = (np.insert(each, 1, 0.1, axis=1) for each in (base(), plain(base()).means))
    return Case(rows, means, np.ones((2, 3)), same_as=plain(base()), columns=(0, 2))


def collinear() -> Case:
    """x, y, 2x: the start gives x the precision 1 + 4, and later the third column adds nothing."""
    rows, means = (each[:, [0, 1, 0]] * [1, 1, 2] for each in (base(), plain(base()).means))
    known = Case(base(), means[:, :2], np.array([[1 / 5, 1]] * 2))
    return Case(rows, means, np.ones((2, 3)), same_as=known)


def too_many() -> Case:
    """Four components, two distinct rows."""
    rows = base(2)[np.arange(40) % 2]
    return Case(rows, base(4), np.ones((4, 2)), bounded=False)


def far() -> Case:
    """A third component, where no row is."""
    known = plain(base())
    means, variances = np.vstack([known.means, [[1e4, 1e4]]]), np.ones((3, 2))
    return Case(known.rows, means, variances, same_as=known)


def heavy(weight: float) -> Case:
    """One row counts for so many: EM ends with a component on that row alone."""
    row_weights = np.ones(60)
    row_weights[3] = weight
    return plain(base(), row_weights=row_weights, bounded=False)


def uneven() -> Case:
    """Weights over eight orders of magnitude."""
    row_weights = 10.0 ** np.random.default_rng(1).uniform(-4, 4, 60)
    return plain(base(), row_weights=row_weights)


def outlier(far: float) -> Case:
    """One row far away among 3,000 of variance 1, each with its component."""
    rows = np.random.default_rng(7).normal(size=(3000, 2))
    means = np.array([[0.0, 0.0], [far, -far]])
    known = single(rows)
    rows = np.vstack([rows, means[1:]])
    return Case(rows, means, np.ones((2, 2)), same_as=known, components=(0,))


def tied_values() -> Case:
    """Rows measured to 1: EM ends with a component on those of one value."""
    means, variances = np.array([[-1.0, -1], [1, 1]]), np.array([[1.0, 1], [1e-3, 1]])
    return Case(np.round(base()), means, variances, bounded=False)


def tiny(by: float) -> Case:
    """All rows at 0, but for what squares, or even denormals, can't tell apart."""
    return Case(base() * by, np.eye(2), np.ones((2, 2)), bounded=False)


def denormal_column() -> Case:
    """A column whose variance no double can hold, so that it decides nothing."""
    rows = np.insert(base(), 1, base()[:, 0] * 1e-310, axis=1)
    means = np.insert(plain(base()).means, 1, 0.0, axis=1)
    return Case(rows, means, np.ones((2, 3)), same_as=plain(base()), columns=(0, 2))


def wide() -> Case:
    """More columns than anyone has rows for."""
    rows = base(40, 10)
    rows = np.tile(rows, (1, 1000)) + np.random.default_rng(4).normal(size=(40, 10_000))
    return Case(rows, rows[[0, 1]], np.full((2, 10_000), 4.0), kind="diag")


def single(rows: Array, row_weights: Array | None = None) -> Case:
    """One component."""
    return Case(rows, rows[:1], np.ones((1, rows.shape[1])), row_weights=row_weights)


def one_column() -> Case:
    """D = 1."""
    return Case(base(n_features=1), np.array([[-1.0], [1.0]]), np.ones((2, 1)))


def small_floats() -> Array:
    """Single precision, below 1."""
    return (base() / 8).astype(np.float32)


CASES: dict[str, Callable[[], Case]] = {
    "as it is": lambda: plain(base()),
    "shifted by 1e8": lambda: plain(base(), shift=1e8),
    "shifted by 1e12": lambda: plain(base(), shift=1e12),
    "columns of 1e-7 and 1: condition 1e14": lambda: plain(base(), by=[1e-7, 1.0]),
    "turned, condition 1e8": lambda: turned(1e8),
    "turned, condition 1e12": lambda: turned(1e12),
    "turned, condition 1e14": lambda: turned(1e14),
    "a component of 1e-6": lambda: narrow(1e-6),
    "float32 of 1e38": lambda: plain(small_floats(), by=3e38),
    "float32 of 1e-38": lambda: plain(small_floats(), by=1e-38),
    "float32 columns of 1e38 and 1e-38": lambda: plain(small_floats(), by=[3e38, 1e-38]),
    "float64 of 1e150": lambda: plain(base(), by=1e150),
    "float64 of 1e153": lambda: plain(base(), by=1e153),
    "rows of 1e-160": lambda: tiny(1e-160),
    "rows of 1e-300": lambda: tiny(1e-300),
    "denormal rows, 1e-310": lambda: tiny(1e-310),
    "an outlier at 1e4": lambda: outlier(1e4),
    "an outlier at 1e9": lambda: outlier(1e9),
    "an outlier at 1e12": lambda: outlier(1e12),
    "ties": tied_values,
    "a denormal column": denormal_column,
    "duplicate rows": duplicated,
    "a constant column": constant,
    "collinear columns": collinear,
    "2 distinct rows, K = 4": too_many,
    "a component where no row is": far,
    "weights of 1e-4 to 1e4": uneven,
    "a row of weight 1e12": lambda: heavy(1e12),
    "a row of weight 1e300": lambda: heavy(1e300),
    "10,000 columns": wide,
    "K = 1": lambda: single(base()),
    "K = 1, a row of weight 1e12": lambda: single(base(), heavy(1e12).row_weights),
    "K = 1, shifted by 1e8": lambda: single(base() + 1e8),
    "D = 1": one_column,
}


# ---------------------------------------------------------------- programs


def by_class(kind: Any, case: Case, **more: Any) -> Any:
    """A fitted model of dgmm's class or of scikit-learn's, which take the same words."""
    begin, weights = case.start, case.row_weights
    precisions = {"full": np.linalg.inv, "diag": np.reciprocal}[case.kind](begin.covariances)
    model = kind(
        len(case.means),
        covariance_type=case.kind,
        weights_init=begin.weights,
        means_init=begin.means,
        precisions_init=precisions,
        reg_covar=0,
        tol=0,
        max_iter=ITERATIONS,
        **more,
    )
    return model.fit(case.rows) if weights is None else model.fit(case.rows, sample_weight=weights)


def parameters(model: Any, score: float) -> Parameters:
    """What a model ended with."""
    return Parameters(model.weights_, model.means_, model.covariances_, score)


Answer = tuple[Parameters, str]
"""The parameters that a program found, and what it says of them."""

Fit = Callable[[Case], Answer]


def by_dgmm(case: Case) -> Answer:
    """With the components that a warning names, and whether the objective fell."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = by_class(dgmm.GaussianMixture, case, strategy="em", precision="float64")
    info = model.fit_info_
    remarks = [
        f"{name} {', '.join(map(str, info[name]))}" for name in ("empty", "singular") if info[name]
    ]
    remarks += ["objective fell" for each in caught if each.category is dgmm.ObjectiveFellWarning]
    return parameters(model, info["score"]), "; ".join(remarks)


def by_sklearn(case: Case) -> Answer:
    """Raises ``Unavailable`` for weighted rows."""
    if case.row_weights is not None:
        raise Unavailable("takes no weights")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = by_class(sklearn.mixture.GaussianMixture, case)
        return parameters(model, model.score(case.rows)), ""


def by_spark(case: Case, python: str) -> Answer:
    """In a process of ``python``; raises ``Unavailable`` for what Spark does not do."""
    if case.row_weights is not None:
        raise Unavailable("takes no weights with a start")
    if case.kind != "full":
        raise Unavailable("full covariances only")
    begin = case.start
    with tempfile.TemporaryDirectory() as place:
        for name in ("weights", "means", "covariances"):
            np.save(Path(place, f"{name}.npy"), getattr(begin, name))
        np.save(Path(place, "rows.npy"), case.rows)
        given = (Path(place), "float64", case.kind, 1, PATIENCE)
        with contender(SPARK, python, *given) as spark:
            spark.run(ITERATIONS, keep=1)
        with np.load(Path(place, "found.npz")) as found:
            return Parameters(**found), ""


# ---------------------------------------------------------------- the table


def cell(case: Case, right: Parameters | None, fit: Fit) -> str:
    """What a program makes of a case."""
    try:
        found, remark = fit(case)
    except Unavailable as why:
        return str(why)
    except Exception as failure:  # whatever a program raises is its answer
        return shorten(f"error: {failure}", 75)
    if not found.finite:
        return "NaN"
    errors = []
    if right is not None:
        part = found.part(case.components, case.columns) if case.same_as else found
        errors.append(error(case.kind, part, right))
        if part.score is not None:
            errors.append(float(abs(found.score / float(right.score) - 1)))
    return "; ".join(filter(None, [", ".join(map(rough, errors)), remark])) or "says nothing"


def rough(error: float) -> str:
    """One digit of an error."""
    return f"{error:.0e}" if error else "0"


@click.command()
@click.option(
    "--case",
    "names",
    multiple=True,
    type=click.Choice(list(CASES)),
    help="Only this one; may be given more than once.",
)
@python_option
def torture(names: tuple[str, ...], pythons: dict[str, str]) -> None:
    """Data on which formulas fail, against sixty digits.

    Offsets, condition numbers, extremes of floats, degenerate rows and columns: what dgmm,
    scikit-learn and Spark make of them, from the same start.

    Example: python -m benchmarks torture --python spark=envs/spark/bin/python
    """
    spark = partial(by_spark, python=pythons["spark"])
    programs: dict[str, Fit] = {"dgmm": by_dgmm, "scikit-learn": by_sklearn, "spark": spark}

    def lines() -> Iterator[list[Cell]]:
        for name in names or CASES:
            say(f"torture: {name}")
            case = CASES[name]()
            right = case.right
            score = stored = "-"
            if right is not None:
                stored = rough(error(case.kind, right.stored, right))
            if right is not None and case.same_as is None:
                score = f"{right.score:.9g}"
            yield [name, score, stored, *(cell(case, right, each) for each in programs.values())]

    show("Torture", ["case", "log-likelihood", "float64", *programs], lines(), NOTE)
