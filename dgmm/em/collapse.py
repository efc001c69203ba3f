"""Why components collapsed: which features hold them flat, and what can be done about it.

The covariance of a collapsed component, in the frame, has eigenvalues that are nothing but
rounding.  The features with large loadings in their eigenvectors are those to be named.  What is
flat in every component and between them is flat in all rows, a flaw of the columns: one is
constant, or some follow from others.  What is flat in a component alone is one of
its rows: they are too few, or few distinct ones many times over, or have one value of a column that
has few.  How many rows are distinct is seen in a sample of them, where there is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.em.causes import CAUSES, Collapse
from dgmm.em.flat import Flat, flat_in_all, total_covariance
from dgmm.model.arrays import FLOOR, Array
from dgmm.model.mixture import Mixture

WIDE: Final = 1e6
"""A component of so large variances is that of rows far from most."""

LOADING: Final = 0.1
"""Features with this part of the largest loading are named."""

MANY: Final = 200
"""How many features are looked at where a covariance model has variances alone."""


@dataclass(frozen=True)
class LabelledSample:
    """A sample of the rows: itself (n, D), and the component of each row (n,)."""

    rows: NDArray[Any]
    labels: NDArray[np.int64]


def collapses(
    bare: Mixture,
    collapsed: Sequence[int],
    counts: Array,
    reg: Array,
    alone: float,
    sample: LabelledSample | None = None,
) -> list[Collapse]:
    """Why each of the components ``collapsed`` did; of those of one cause, one ``Collapse``.

    ``bare`` is the mixture in the frame, as it is without ``reg``; ``counts`` (K,) says of how many
    rows each of its components is.  Collapsed is also what has less variance in some direction than
    ``alone`` times ``reg`` (D,).
    """
    if not collapsed:
        return []
    if bare.n_features > MANY:
        chosen = _flattest(bare, collapsed, reg, alone)
        if (few := bare.covariances.narrowed(chosen)) is not None:
            narrow = Mixture(bare.weights, bare.means[:, chosen], few)
            return _of_features(narrow, chosen, collapsed, counts, reg, alone, sample)
    dense = bare.covariances.dense()
    flats = [Flat.of(each) for each in dense]
    flat_everywhere = flat_in_all(bare, flats)
    tally = None if sample is None else _Tally.of(sample, bare.components)
    causes: list[Cause] = []
    for k in collapsed:
        variances = np.diagonal(dense[k])
        if variances.max() > WIDE:
            causes.append(("far rows", k, np.sqrt(variances / variances.max()), 0))
        elif flats[k].rank < bare.n_features:
            causes += _own(bare, k, flats[k], flat_everywhere, counts, tally)
        else:
            causes.append(_held(k, dense[k], total_covariance(bare, dense), reg, alone))
    return _merged(causes)


def _flattest(
    bare: Mixture, collapsed: Sequence[int], reg: Array, alone: float
) -> NDArray[np.intp]:
    """The flattest ``MANY`` features: no others matter where none goes with another."""
    flatness = (bare.variances[list(collapsed)] / np.maximum(alone * reg, FLOOR)).min(axis=0)
    return np.sort(np.argsort(flatness, kind="stable")[:MANY])


def _of_features(
    narrow: Mixture,
    chosen: NDArray[np.intp],
    collapsed: Sequence[int],
    counts: Array,
    reg: Array,
    alone: float,
    sample: LabelledSample | None,
) -> list[Collapse]:
    """The same from the ``chosen`` features alone, of which ``narrow`` is the mixture.

    So nothing is of size D^2 where the mixture itself is not.
    """
    sample = None if sample is None else replace(sample, rows=sample.rows[:, chosen])
    return [
        replace(each, features=tuple(int(chosen[j]) for j in each.features))
        for each in collapses(narrow, collapsed, counts, reg[chosen], alone, sample)
    ]


Cause = tuple[str, int, Array, int]
"""A cause, a component, the loading of each feature (D,), and the number that goes with it."""


def _held(k: int, covariance: Array, total: Array, reg: Array, alone: float) -> Cause:
    """Why ``reg`` holds up component ``k``, though it is more than flat by itself."""
    root = np.sqrt(np.maximum(alone * reg, FLOOR))
    values, vectors = np.linalg.eigh(covariance / root[:, None] / root)
    thin = vectors[:, values <= max(1.0, values[0])]
    spread = np.sum(thin * ((total / root[:, None] / root) @ thin), axis=0)
    return "reg_covar" if np.any(alone * spread < 1.0) else "flat", k, _loadings(thin), 0


@dataclass(frozen=True)
class _Tally:
    """Of a sample's rows: how many, and how many distinct ones, in all and in each component."""

    sample: LabelledSample
    rows: int
    distinct: int
    rows_of: Array
    distinct_of: Array

    @classmethod
    def of(cls, sample: LabelledSample, components: int) -> "_Tally":
        members = [sample.rows[sample.labels == k] for k in range(components)]
        rows_of, distinct_of = (
            np.array(list(map(count, members)), dtype=np.float64) for count in (len, _distinct)
        )
        return cls(sample, len(sample.rows), _distinct(sample.rows), rows_of, distinct_of)


def _own(
    mixture: Mixture, k: int, flat: Flat, whole: Flat, counts: Array, tally: _Tally | None
) -> list[Cause]:
    """Why component ``k`` collapsed: what is flat in all rows, and what in its own alone."""
    causes: list[Cause] = []
    if whole.constant.any():
        one = counts.sum() < 1.5
        causes.append(("one row" if one else "constant", k, whole.constant.astype(np.float64), 0))
    if columns := whole.directions.shape[1]:
        cause, number = _cause_in_all(whole.rank, columns, counts, tally)
        causes.append((cause, k, _loadings(whole.directions), number))
    singles, others = flat.constant & ~whole.constant, flat.beyond(whole)
    loadings = np.maximum(singles, _loadings(others))
    if not loadings.any():
        return causes
    freedom = mixture.covariance_model.freedom
    if freedom(counts)[k] < flat.rank + 0.5:
        return [*causes, ("few rows", k, loadings, max(1, round(float(counts[k]))))]
    repeated = flat.rank == 0
    if tally is not None:
        few = freedom(tally.distinct_of)[k] <= flat.rank < freedom(tally.rows_of)[k]
        repeated = repeated or bool(few)
    if repeated:
        return [
            *causes,
            ("equal rows", k, loadings, 0 if tally is None else int(tally.distinct_of[k])),
        ]
    if singles.any():
        values = 0 if tally is None else _most_values(tally.sample.rows[:, singles])
        causes.append(("few values", k, singles.astype(np.float64), values))
    if others.shape[1]:
        causes.append(("flat", k, _loadings(others), 0))
    return causes


def _cause_in_all(rank: int, columns: int, counts: Array, tally: _Tally | None) -> tuple[str, int]:
    """Why so many ``columns`` more than the ``rank`` of all rows follow from others."""
    rows = float(counts.sum())
    if rows - 1 < rank + 0.5:
        return "few rows", round(rows)
    if tally is not None and tally.distinct - 1 <= rank < tally.rows - 1:
        return "equal rows", tally.distinct
    return "dependent", columns


def _loadings(directions: Array) -> Array:
    """How much each feature (D,) takes part in orthogonal ``directions`` (D, m)."""
    loadings: Array = np.sqrt(np.sum(directions * directions, axis=1))
    return loadings


def _distinct(rows: NDArray[Any]) -> int:
    return len(np.unique(rows, axis=0))


def _most_values(columns: NDArray[Any]) -> int:
    return max(len(np.unique(column)) for column in columns.T)


def _merged(causes: list[Cause]) -> list[Collapse]:
    """One ``Collapse`` for each cause."""
    merged = []
    for cause in CAUSES:
        of_cause = [each for each in causes if each[0] == cause]
        if of_cause:
            loadings = np.max([each[2] for each in of_cause], axis=0)
            # To three digits, so that equal ones stay in the order of the columns.
            order = np.argsort(-np.round(loadings, 3), kind="stable")
            named = [int(j) for j in order if loadings[j] >= LOADING * loadings.max()]
            components = tuple(sorted({each[1] for each in of_cause}))
            merged.append(
                Collapse(cause, components, tuple(named), max(each[3] for each in of_cause))
            )
    return merged
