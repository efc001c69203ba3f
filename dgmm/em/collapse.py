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

from dgmm.model.arrays import FLOOR, Array
from dgmm.model.mixture import Mixture

FLAT: Final = 10.0
"""A variance up to so many times ``FLOOR`` or rounding is nothing else."""

SAME: Final = 1e-12
"""Where means differ by the root of it, in the frame, they are the same but for rounding."""

WIDE: Final = 1e6
"""A component of so large variances is that of rows far from most."""

LOADING: Final = 0.1
"""Features with this part of the largest loading are named."""

MANY: Final = 200
"""How many features are looked at where a covariance model has variances alone."""

SHOWN: Final = 6
"""How many features a message names."""


@dataclass(frozen=True)
class Cause:
    """Why components collapse, for a person.

    Attributes
    ----------
    because : str
        With {columns} and {have} for the features, {their}, {each} and {distinct} for the
        components and their rows, and {number}.
    advice : str
    """

    because: str
    advice: str


CAUSES: Final = {
    "constant": Cause(
        "{columns} {have} one value in all rows",
        "Leave {it} out",
    ),
    "dependent": Cause(
        "{columns} follow from each other in all rows (copies, sums or differences)",
        "Leave {number} of them out",
    ),
    "few values": Cause(
        "{each} has rows of one of the {number} values of {columns} alone",
        "A column of few values (0 and 1, codes, rounded numbers) is not normally distributed: "
        "leave it out, or raise reg_covar to about the square of its steps",
    ),
    "equal rows": Cause(
        "{their} rows are {distinct}, with no spread in {columns}",
        "Fit fewer components, or raise reg_covar to about the square of what rows are rounded to",
    ),
    "few rows": Cause(
        "{their} rows, {number} at most, are too few to spread in {columns}",
        "Fit fewer components, or fewer columns, or raise reg_covar",
    ),
    "flat": Cause(
        "{their} rows have no spread in some direction of {columns}, and other rows have",
        "Fit fewer components, or raise reg_covar",
    ),
    "far rows": Cause(
        "rows far from most make {their} variance so large in {columns} that others' are rounding",
        "Look at the rows far away there: leave them out, or fit more components",
    ),
    "reg_covar": Cause(
        "reg_covar is more than all the variance that the rows have in {columns}",
        "Give a smaller reg_covar, or none: the default goes by each column's own variance",
    ),
}
"""In the order in which they are told."""


@dataclass(frozen=True)
class Collapse:
    """Components that collapsed for one reason.

    Attributes
    ----------
    cause : str
        A key of ``CAUSES``.
    components : tuple of int
    features : tuple of int
        That have no spread in them, the largest loading first.
    number : int
        Of columns to leave out, of values, of distinct rows, or of rows, as the cause has it; 0
        where that isn't known.
    """

    cause: str
    components: tuple[int, ...]
    features: tuple[int, ...]
    number: int = 0

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "cause": self.cause,
            "components": list(self.components),
            "features": list(self.features),
            "number": self.number,
        }

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Collapse":
        """From what ``record`` gave."""
        components, features = (tuple(record[name]) for name in ("components", "features"))
        return cls(record["cause"], components, features, record["number"])

    def said(self, names: Sequence[str] | None = None) -> str:
        """For a person, with the ``names`` (D,) of the features if they have any."""
        several, many = len(self.components) > 1, len(self.features) > 1
        cause = CAUSES[self.cause]
        words = {
            "columns": column_names(self.features, names),
            "have": "have" if many else "has",
            "it": "them" if many else "it",
            "their": "their" if several else "its",
            "each": "each" if several else "it",
            "number": self.number or "few",
            "distinct": "all equal"
            if self.number == 1 and not several
            else f"{self.number or 'few'} distinct ones{' at most' * several}, many times over",
        }
        return (
            f"{component_names(self.components)} {'are' if several else 'is'} singular: "
            f"{cause.because.format(**words)}; the variance there is the smallest allowed. "
            f"{cause.advice.format(**words)}"
        )


def component_names(components: Sequence[int]) -> str:
    """What messages call components."""
    return f"component{'s' * (len(components) > 1)} {', '.join(map(str, components))}"


def column_names(features: tuple[int, ...], names: Sequence[str] | None) -> str:
    """What a message calls features: 'column 3', or 'columns 'a', 'b' and 4 more'."""
    shown = [str(j) if names is None else repr(str(names[j])) for j in sorted(features[:SHOWN])]
    more = f" and {len(features) - SHOWN} more" * (len(features) > SHOWN)
    return f"column{'s' * (len(features) > 1)} {', '.join(shown)}{more}"


@dataclass(frozen=True)
class Seen:
    """A sample of the rows: itself (n, D), and the component of each row (n,)."""

    rows: NDArray[Any]
    labels: NDArray[np.int64]


def collapses(
    bare: Mixture,
    collapsed: Sequence[int],
    counts: Array,
    reg: Array,
    alone: float,
    seen: Seen | None = None,
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
        if (few := bare.covariances.alone(chosen)) is not None:
            narrow = Mixture(bare.weights, bare.means[:, chosen], few)
            return _of_features(narrow, chosen, collapsed, counts, reg, alone, seen)
    dense = bare.covariances.dense()
    flats = [_Flat.of(each) for each in dense]
    whole = _flat_in_all(bare, flats)
    tally = None if seen is None else _Tally.of(seen, bare.components)
    found: list[Found] = []
    for k in collapsed:
        variances = np.diagonal(dense[k])
        if variances.max() > WIDE:
            found.append(("far rows", k, np.sqrt(variances / variances.max()), 0))
        elif flats[k].rank < bare.n_features:
            found += _own(bare, k, flats[k], whole, counts, tally)
        else:
            found.append(_held(k, dense[k], _total(bare, dense), reg, alone))
    return _merged(found)


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
    seen: Seen | None,
) -> list[Collapse]:
    """The same from the ``chosen`` features alone, of which ``narrow`` is the mixture.

    So nothing is of size D^2 where the mixture itself is not.
    """
    seen = None if seen is None else replace(seen, rows=seen.rows[:, chosen])
    return [
        replace(each, features=tuple(int(chosen[j]) for j in each.features))
        for each in collapses(narrow, collapsed, counts, reg[chosen], alone, seen)
    ]


Found = tuple[str, int, Array, int]
"""A cause, a component, the loading of each feature (D,), and the number that goes with it."""


@dataclass(frozen=True)
class _Flat:
    """Where a covariance is flat: features without variance (D,), directions (D, m) of others."""

    constant: NDArray[np.bool_]
    directions: Array

    @classmethod
    def of(cls, covariance: Array) -> "_Flat":
        rounding = len(covariance) * np.finfo(np.float64).eps * np.trace(covariance)
        limit = FLAT * max(FLOOR, float(rounding))
        constant = np.diagonal(covariance) <= limit
        rest = np.flatnonzero(~constant)
        directions = np.zeros((len(covariance), 0))
        if len(rest):
            values, vectors = np.linalg.eigh(covariance[np.ix_(rest, rest)])
            inside = vectors[:, values <= limit]
            directions = np.zeros((len(covariance), inside.shape[1]))
            directions[rest] = inside
        return cls(constant, directions)

    @property
    def rank(self) -> int:
        """In how many directions there is spread."""
        return int(len(self.constant) - self.constant.sum() - self.directions.shape[1])

    @property
    def basis(self) -> Array:
        """All that is flat, (D, m)."""
        return np.concatenate([np.eye(len(self.constant))[:, self.constant], self.directions], 1)

    def beyond(self, other: "_Flat") -> Array:
        """Of its ``directions``, what is not flat in the ``other``, (D, m)."""
        known = np.where(self.constant[:, None], 0.0, other.directions)
        basis, sizes, _ = np.linalg.svd(known, full_matrices=False)
        basis = basis[:, sizes > 1e-3]
        left, sizes, _ = np.linalg.svd(
            self.directions - basis @ (basis.T @ self.directions), full_matrices=False
        )
        return np.asarray(left[:, sizes > 0.5])


def _flat_in_all(mixture: Mixture, flats: Sequence[_Flat]) -> _Flat:
    """What is flat in all rows: in every component that has any, and between these."""
    spread = np.zeros((mixture.n_features, mixture.n_features))
    for flat, weight in zip(flats, mixture.weights, strict=True):
        if weight > 0:
            spread += np.eye(mixture.n_features) - flat.basis @ flat.basis.T
    values, vectors = np.linalg.eigh(spread)
    inside = vectors[:, values < 1e-6]
    between = mixture.covariance_model.kept(_between(mixture))
    values, vectors = np.linalg.eigh(inside.T @ between @ inside)
    inside = inside @ vectors[:, values <= SAME]
    constant = np.sum(inside * inside, axis=1) > 1 - 1e-6
    directions, sizes, _ = np.linalg.svd(
        np.where(constant[:, None], 0.0, inside), full_matrices=False
    )
    return _Flat(constant, directions[:, sizes > 0.5])


def _between(mixture: Mixture) -> Array:
    """The covariance of the components' means, (D, D)."""
    away = mixture.means - mixture.weights @ mixture.means
    return (away.T * mixture.weights) @ away


def _total(mixture: Mixture, dense: Array) -> Array:
    """The covariance of all rows, (D, D): within the components and between."""
    return np.tensordot(mixture.weights, dense, 1) + _between(mixture)


def _held(k: int, own: Array, total: Array, reg: Array, alone: float) -> Found:
    """Why ``reg`` holds up component ``k``, though it is more than flat by itself."""
    root = np.sqrt(np.maximum(alone * reg, FLOOR))
    values, vectors = np.linalg.eigh(own / root[:, None] / root)
    thin = vectors[:, values <= max(1.0, values[0])]
    spread = np.sum(thin * ((total / root[:, None] / root) @ thin), axis=0)
    return "reg_covar" if np.any(alone * spread < 1.0) else "flat", k, _loadings(thin), 0


@dataclass(frozen=True)
class _Tally:
    """Of a sample's rows: how many, and how many distinct ones, in all and in each component."""

    seen: Seen
    rows: int
    distinct: int
    rows_of: Array
    distinct_of: Array

    @classmethod
    def of(cls, seen: Seen, components: int) -> "_Tally":
        members = [seen.rows[seen.labels == k] for k in range(components)]
        rows_of, distinct_of = (
            np.array(list(map(count, members)), dtype=np.float64) for count in (len, _distinct)
        )
        return cls(seen, len(seen.rows), _distinct(seen.rows), rows_of, distinct_of)


def _own(
    mixture: Mixture, k: int, flat: _Flat, whole: _Flat, counts: Array, tally: _Tally | None
) -> list[Found]:
    """Why component ``k`` collapsed: what is flat in all rows, and what in its own alone."""
    found: list[Found] = []
    if whole.constant.any():
        found.append(("constant", k, whole.constant.astype(np.float64), 0))
    if columns := whole.directions.shape[1]:
        cause, number = _cause_in_all(whole.rank, columns, counts, tally)
        found.append((cause, k, _loadings(whole.directions), number))
    singles, others = flat.constant & ~whole.constant, flat.beyond(whole)
    loadings = np.maximum(singles, _loadings(others))
    if not loadings.any():
        return found
    freedom = mixture.covariance_model.freedom
    if freedom(counts)[k] < flat.rank + 0.5:
        return [*found, ("few rows", k, loadings, max(1, round(float(counts[k]))))]
    repeated = flat.rank == 0
    if tally is not None:
        few = freedom(tally.distinct_of)[k] <= flat.rank < freedom(tally.rows_of)[k]
        repeated = repeated or bool(few)
    if repeated:
        return [
            *found,
            ("equal rows", k, loadings, 0 if tally is None else int(tally.distinct_of[k])),
        ]
    if singles.any():
        values = 0 if tally is None else _most_values(tally.seen.rows[:, singles])
        found.append(("few values", k, singles.astype(np.float64), values))
    if others.shape[1]:
        found.append(("flat", k, _loadings(others), 0))
    return found


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


def _merged(found: list[Found]) -> list[Collapse]:
    """One ``Collapse`` for each cause."""
    merged = []
    for cause in CAUSES:
        own = [each for each in found if each[0] == cause]
        if own:
            loadings = np.max([each[2] for each in own], axis=0)
            # To three digits, so that equal ones stay in the order of the columns.
            order = np.argsort(-np.round(loadings, 3), kind="stable")
            named = [int(j) for j in order if loadings[j] >= LOADING * loadings.max()]
            components = tuple(sorted({each[1] for each in own}))
            merged.append(Collapse(cause, components, tuple(named), max(each[3] for each in own)))
    return merged
