"""The arithmetic of one block of rows: two matrix products and the softmax between them.

For a tile of rows small enough for the cache, with features T(x) of width P (covariance.py)::

    L = eta . T(x)          (K, n)   log pi_k + log N(x | k) - penalty_k
    R = w softmax(L)        (K, n)   responsibilities times row weights
    S = R . T(x)'           (K, P)   what the M-step needs

Several mixtures at once are only more rows of eta.  Responsibilities live in a tile and nowhere
else.

**When the products are not exact enough.**  In L, terms of size (|x| + |mu|)^2 |P| cancel down to
a log-density; in the M-step the same happens to S.  With unit round-off u the error is about
sqrt(P) u (rho + |mu_k|)^2 |P_k|, with rho the root mean square of |x| in the frame (Higham,
Accuracy and Stability of Numerical Algorithms, 2002, sections 3.1 and 2.8).  A component whose
bound exceeds ``TOLERANCE`` is centred: its log-density is computed from x - mu_k, and its sums are
taken about mu_k (``Form.about``), which cancels nothing.  A component a thousand times narrower
than the data is centred; ordinary ones never are.

**In single precision** the same holds with a larger u, and half the time is saved.  So long as the
bound stays under ``SINGLE_TOLERANCE`` a form may ask for it (em.py decides): the products of a tile
are then single, what is added up over tiles never is.

**The penalty.**  Adding e to the diagonal of each covariance, as ``reg_covar`` does, is the exact
M-step not of the likelihood, but of the likelihood with each component's density multiplied by
exp(-e tr(Sigma_k^-1) / 2).  So that is the objective here, and it never falls; the plain
log-likelihood is summed beside it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.errors import DataError
from dgmm.kernels.sweep import Block
from dgmm.model.covariance import Array, Structure
from dgmm.model.mixture import Frame, Mixture
from dgmm.model.statistics import Statistics, Together

TOLERANCE: Final = 1e-9
SINGLE_TOLERANCE: Final = 1e-3
TILE_BYTES: Final = 2 << 20
LOWEST: Final = (-1e300, -1e30)
"""Log-densities that are as good as minus infinity, in double and single precision."""

WIDE: Final = (600.0, 60.0)
"""Penalties further apart than this are beyond the range of exp, in double and single precision."""


@dataclass(frozen=True)
class Away:
    """How a component's rows lie about its mean, in the mean square over its responsibilities.

    Attributes
    ----------
    squares : (K, D)
        Of d_j = x_j - mu_kj.
    lengths : (K,)
        Of |C_k'd|: D where the rows are as the component expects them.
    """

    squares: Array
    lengths: Array

    @classmethod
    def expected(cls, mixture: Mixture) -> "Away":
        """As the mixture's components expect them."""
        return cls(mixture.variances, np.full(mixture.components, float(mixture.dims)))

    @classmethod
    def found(cls, mixture: Mixture, covariances: Array, offsets: Array) -> "Away":
        """Of rows of these ``covariances`` about means (K, D) that are ``offsets`` from mu."""
        structure, components, dims = mixture.structure, mixture.components, mixture.dims
        squares = structure.variances(covariances, components, dims) + offsets**2
        lengths = structure.whitened_trace(mixture.factors, covariances, dims)
        moved = np.sum(structure.whitened(mixture.factors, offsets) ** 2, axis=1)
        return cls(np.maximum(squares, 0.0), np.maximum(lengths + moved, 0.0))


def product_noise(mixture: Mixture, away: Away, unit: float, spread: float = 0.0) -> Array:
    """The bound (K,) above on the error of log-densities by products; ``unit`` is u.

    A component's own rows have |x| up to |mu| + |d|; ``spread`` is that of all rows, rho.
    """
    structure = mixture.structure
    centre = np.linalg.norm(mixture.means, axis=1)
    size = centre + np.maximum(centre + np.sqrt(away.squares.sum(axis=1)), spread)
    width = structure.width(mixture.dims)
    return np.sqrt(width) * unit * size**2 * structure.stiffness(mixture.factors)


def penalties(mixture: Mixture, reg: Array) -> Array:
    """reg . diag(Sigma_k^-1) / 2, (K,), for ``reg`` (D,)."""
    trace = mixture.structure.trace(mixture.factors, reg)
    return np.broadcast_to(0.5 * trace, (mixture.components,))


def natural(mixture: Mixture, constants: Array) -> Array:
    """eta (K, P), for log-densities ``constants`` (K,) at the means."""
    structure, dims = mixture.structure, mixture.dims
    eta = np.empty((mixture.components, structure.width(dims)))
    linear = structure.solve(mixture.factors, mixture.means)
    eta[:, 0] = constants - 0.5 * np.sum(mixture.means * linear, axis=1)
    eta[:, 1 : 1 + dims] = linear
    eta[:, 1 + dims :] = structure.quadratic(mixture.factors)
    return eta


@dataclass(frozen=True)
class Form:
    """A mixture (in the frame) written for the kernel.

    Attributes
    ----------
    layout : Structure
        Decides T, of width P; the mixture's own structure unless that can't be centred.
    eta : (K, P)
        The natural parameters; the rows of centred components are not used.
    constants : (K,)
        Log-densities at the means, less penalties; without weight, as low as can be borne.
    centred : tuple of int
        The components to treat by differences from their means.
    about : (K, D)
        Where sums are taken about: 0, or the mean of a centred component.
    penalty : (K,)
        reg . diag(Sigma_k^-1) / 2.
    whole : bool
        Whether the log-densities hold ``Structure.common``, or it is added afterwards.
    single : bool
        Whether the products are in single precision; sums over tiles never are.
    """

    mixture: Mixture
    layout: Structure
    eta: Array
    constants: Array
    centred: tuple[int, ...]
    about: Array
    penalty: Array
    whole: bool
    single: bool = False

    @classmethod
    def of(
        cls,
        mixture: Mixture,
        reg: Array | None = None,
        spread: float | None = None,
        centre: bool = False,
        single: bool = False,
        apart: bool = False,
    ) -> "Form":
        """Write ``mixture``.

        ``reg`` (D,) is added to covariances, ``spread`` is rho above; ``centre`` all components,
        or those that need it; ``single`` as the attribute; ``apart`` asks for the quadratic part
        of each component, even if they are tied.
        """
        structure, dims = mixture.structure, mixture.dims
        reg = np.zeros(dims) if reg is None else reg
        spread = np.sqrt(dims) if spread is None else spread
        penalty = penalties(mixture, reg)
        constants = np.maximum(mixture.constants - penalty, LOWEST[single])
        unit = float(np.finfo(np.float64).eps)
        bound = product_noise(mixture, Away.expected(mixture), unit, spread)
        unfit = (bound > TOLERANCE) & (mixture.weights > 0)
        layout = structure.centred if apart or unfit.any() else structure
        whole = centre or layout is not structure
        if whole:
            unfit = np.ones_like(unfit)
        eta = np.zeros((mixture.components, layout.width(dims)))
        if not whole:
            eta = natural(mixture, constants)
        about = np.where(unfit[:, None], mixture.means, 0.0)
        centred = tuple(np.flatnonzero(unfit).tolist())
        return cls(mixture, layout, eta, constants, centred, about, penalty, whole, single)

    @property
    def bare(self) -> "Form":
        """What an E-step needs of it: without covariances, nor natural parameters not used."""
        mixture = replace(self.mixture, covariances=self.mixture.covariances[:0])
        return replace(self, mixture=mixture, eta=self.eta[:, :0] if self.whole else self.eta)

    def pairing(self, sums: Array, about: Array) -> float:
        """sum_k sums_k . eta_k, for ``sums`` (K, P) of T(x - about_k)."""
        mixture, dims = self.mixture, self.mixture.dims
        if self.layout.shared:
            return float(np.sum(natural(mixture, self.constants) * self.layout.moved(sums, -about)))
        eta = np.zeros_like(sums)  # about its mean, a log-density has no linear part
        eta[:, 0] = self.constants
        shape = self.layout.shape(mixture.components, dims)
        eta[:, 1 + dims :] = self.layout.quadratic(np.broadcast_to(mixture.factors, shape))
        return float(np.sum(eta * self.layout.moved(sums, mixture.means - about)))

    def correct(self, log_joint: Array, x: Array) -> None:
        """Overwrite the centred rows of ``log_joint`` (K, n), for rows ``x`` (D, n)."""
        for k in self.centred:
            log_joint[k] = self.mixture.log_joint(k, x) - self.penalty[k]

    def common(self, x: Array) -> Array | float:
        """What the log-densities of all components hold beyond ``eta . T(x)``."""
        if self.whole:
            return 0.0
        return self.mixture.structure.common(self.mixture.factors, x)

    def common_sum(self, total: Array | None) -> float:
        """The sum of ``common`` over all rows; ``total`` as in ``Structure.common_sum``."""
        if self.whole:
            return 0.0
        return self.mixture.structure.common_sum(self.mixture.factors, total)


@dataclass(frozen=True)
class Anchor:
    """Statistics to be added to those of some rows, as if there were more, or fewer, rows.

    With c_k their sums, the objective grows by sum_k c_k . eta_k: linear in eta, so the M-step
    from the joint statistics still raises it (the inequality that EM rests on holds for the rows'
    own part, and with equality for a linear one).

    Attributes
    ----------
    layout : Structure
        Of the sums.
    sums, about : (K, P), (K, D)
        As in ``Statistics``.
    total : (D, D) or None
        The scatter about 0 of the rows that there would be more, where the structure needs it.
    """

    layout: Structure
    sums: Array
    about: Array
    total: Array | None = None

    def linear(self, form: Form) -> float:
        """sum_k c_k . eta_k under ``form``."""
        found = form.pairing(self.sums, self.about)
        if form.whole and self.total is not None:
            found += form.mixture.structure.common_sum(form.mixture.factors, self.total)
        return found

    def join(self, statistics: Statistics, form: Form) -> Statistics:
        """The joint statistics, with their objective under ``form``: minus infinity if unknown."""
        if form.layout is not self.layout:
            return replace(statistics, objective=-np.inf, log_likelihood=-np.inf)
        sums = self.layout.moved(self.sums, form.about - self.about)
        linear = self.linear(form)
        return replace(
            statistics,
            sums=statistics.sums + sums,
            objective=statistics.objective + linear,
            log_likelihood=statistics.log_likelihood + linear + float(sums[:, 0] @ form.penalty),
        )


@dataclass(frozen=True)
class Given:
    """What an E-step sweep is given: the frame, and mixtures in it."""

    frame: Frame
    forms: tuple[Form, ...]


def tile_rows(numbers_per_row: int) -> int:
    """How many rows a tile has, so that its temporaries stay in the cache; a multiple of 64."""
    return int(np.clip(TILE_BYTES // (8 * numbers_per_row) // 64 * 64, 192, 4096))


def tiles(block: Block, frame: Frame, size: int) -> Iterator[tuple[slice, Array]]:
    """The block's rows in the frame, (D, n) each, with where they stand in the block.

    The array is a buffer that the next tile overwrites.
    """
    buffer = np.empty((block.rows.shape[1], size))
    for start in range(0, len(block.rows), size):
        chosen = slice(start, min(start + size, len(block.rows)))
        rows = block.rows[chosen]
        yield chosen, frame.rows(rows, buffer[:, : len(rows)])


def log_sum_exp(log_joint: Array) -> tuple[Array, Array]:
    """log sum_k exp L (n,), and softmax of L (K, n), which overwrites ``log_joint`` L (K, n)."""
    top = log_joint.max(axis=0)
    log_joint -= top
    np.exp(log_joint, out=log_joint)
    norm = log_joint.sum(axis=0)
    log_joint /= norm
    return top + np.log(norm), log_joint


Group = Callable[[Block, Frame, Structure, list[Form]], list[Statistics]]
"""The statistics of a block under forms of one layout and precision."""


def e_step(block: Block, given: Given) -> Together[Statistics]:
    """The statistics of a block under each form."""
    return by_layout(_e_step_of, block, given)


def by_layout(group: Group, block: Block, given: Given) -> Together[Statistics]:
    """The statistics of a block under each form, those of one layout and precision together."""
    kinds = {(form.layout, form.single): None for form in given.forms}
    sums: dict[int, Statistics] = {}
    for layout, single in kinds:
        chosen = [i for i, f in enumerate(given.forms) if f.layout is layout and f.single is single]
        forms = [given.forms[i] for i in chosen]
        part, scale = _narrowed(block) if single else (block, 1.0)
        found = group(part, given.frame, layout, forms)
        sums |= zip(chosen, [each.scaled(scale) for each in found], strict=True)
    parts = tuple(sums[i] for i in range(len(given.forms)))
    if not all(np.isfinite(part.objective) for part in parts):
        raise DataError(describe_flaw(block) or "the log-likelihood of these rows overflows")
    return Together(parts)


def _narrowed(block: Block) -> tuple[Block, float]:
    """The block with weights in the range of single precision, and what they were divided by."""
    top = 0.0 if block.weights is None else float(block.weights.max(initial=0.0))
    if block.weights is None or not 0.0 < top < np.inf:
        return block, 1.0
    scale = float(np.exp2(np.ceil(np.log2(top))))  # a power of two: no digit is lost
    return replace(block, weights=block.weights / scale), scale


def _e_step_of(
    block: Block, frame: Frame, layout: Structure, forms: list[Form]
) -> list[Statistics]:
    """The statistics of a block under forms of one layout, which share the features."""
    width = layout.width(block.rows.shape[1])
    real = np.float32 if forms[0].single else np.float64
    ends = np.cumsum([len(form.eta) for form in forms])
    segments = [slice(int(end) - len(f.eta), int(end)) for f, end in zip(forms, ends, strict=True)]
    eta = np.zeros((int(ends[-1]), width), real)
    for form, segment in zip(forms, segments, strict=True):
        if not form.whole:
            eta[segment] = form.eta
    size = tile_rows(width + 2 * len(eta))
    buffer, joint = np.empty((width, size), real), np.empty((len(eta), size), real)
    sums = np.zeros((len(eta), width))
    objective, plain = np.zeros(len(forms)), np.zeros(len(forms))
    for chosen, x in tiles(block, frame, size):
        n = x.shape[1]
        weights = None if block.weights is None else block.weights[chosen].astype(np.float64)
        if weights is not None:
            x[:, weights == 0] = 0.0  # whatever such a row holds is as if absent
        features = layout.features(x.astype(real, copy=False), buffer[:, :n])
        log_joint = np.matmul(eta, features, out=joint[:, :n])
        own: list[tuple[int, Array]] = []  # the sums of centred components
        for i, (form, segment) in enumerate(zip(forms, segments, strict=True)):
            part = log_joint[segment]
            form.correct(part, x)
            log_norm, log_plain, shares = _normalise(part, form.penalty)
            if weights is not None:
                shares *= weights
                log_norm, log_plain = log_norm * weights, log_plain * weights
            objective[i] += log_norm.sum(dtype=np.float64)
            plain[i] += log_plain.sum(dtype=np.float64)
            for k in form.centred:
                moved = layout.features(x - form.about[k][:, None], np.empty((width, n)))
                own.append((segment.start + k, moved @ shares[k]))
        product = log_joint @ features.T
        for row, value in own:
            product[row] = value
        sums += product
    rows = len(block.rows)
    weight = float(rows if block.weights is None else block.weights.sum(dtype=np.float64))
    return [
        Statistics(sums[segment], form.about, float(objective[i]), float(plain[i]), weight, rows)
        for i, (form, segment) in enumerate(zip(forms, segments, strict=True))
    ]


def _normalise(log_joint: Array, penalty: Array) -> tuple[Array, Array, Array]:
    """log sum_k e^L_k (n,), the same without penalties (n,), and the softmax of L (K, n)."""
    most = penalty.max()
    if most - penalty.min() > WIDE[log_joint.dtype == np.float32]:
        log_plain = log_sum_exp(log_joint + penalty[:, None])[0]
        return log_sum_exp(log_joint)[0], log_plain, log_joint
    log_norm, shares = log_sum_exp(log_joint)
    if most == 0.0:
        return log_norm, log_norm, shares
    return log_norm, log_norm + most + np.log(np.exp(penalty - most) @ shares), shares


REMEDY: Final = "Leave such rows out, or fill in what they lack (as sklearn.impute does)"
"""What to do about NaN and infinity."""


def first_flaw(block: Block) -> tuple[str, int] | None:
    """Name the block's first row that holds NaN or infinity, and count such rows, if there are."""
    finite = np.isfinite(block.rows)
    if finite.all():
        return None
    bad = ~finite.all(axis=1)
    row = int(bad.argmax())
    column = int((~finite[row]).argmax())
    value = block.rows[row, column]
    name = f"NaN or infinity in the rows: {value} at row {block.start + row}, column {column}"
    return name, int(bad.sum())


def describe_flaw(block: Block) -> str | None:
    """What is wrong with a block that holds NaN or infinity, and what to do; None if it doesn't."""
    if (found := first_flaw(block)) is None:
        return None
    name, count = found
    return f"{name}; such rows among these {len(block.rows):,}: {count:,}. {REMEDY}"


def _labels(log_joint: Array, common: Array | float) -> NDArray[Any]:
    return log_joint.argmax(axis=0)


def _proba(log_joint: Array, common: Array | float) -> NDArray[Any]:
    return log_sum_exp(log_joint)[1].T


def _score(log_joint: Array, common: Array | float) -> NDArray[Any]:
    return log_sum_exp(log_joint)[0] + common


def _same(labels: NDArray[Any]) -> NDArray[Any]:
    return labels


def _likeliest(shares: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(shares.argmax(axis=1))


@dataclass(frozen=True)
class Answer:
    """One kind of per-row answer: from log-densities (K, n) to an array of n rows.

    ``labels`` says of such an array which component each row belongs to, where it tells.
    """

    of: Callable[[Array, Array | float], NDArray[Any]]
    dtype: type[np.generic]
    per_component: bool = False
    labels: Callable[[NDArray[Any]], NDArray[Any]] | None = None

    def columns(self, components: int) -> tuple[int, ...]:
        """The shape of one row's answer."""
        return (components,) if self.per_component else ()


ANSWERS: Final[dict[str, Answer]] = {
    "labels": Answer(_labels, np.int64, labels=_same),
    "proba": Answer(_proba, np.float64, per_component=True, labels=_likeliest),
    "score": Answer(_score, np.float64),
}


def answer(rows: NDArray[Any], mixture: Mixture, what: str, start: int = 0) -> NDArray[Any]:
    """What ``mixture`` (of the data) says of each row of ``rows`` (n, D).

    ``what`` is a key of ``ANSWERS``: the most probable component (n,), each component's
    responsibility (n, K), or the log-density (n,).  ``start`` numbers the first row in errors.
    Raises ``DataError`` on NaN or infinity.
    """
    block = Block(start, rows)
    if flaw := describe_flaw(block):
        raise DataError(flaw)
    kind = ANSWERS[what]
    frame = Frame.of(*mixture.moments(), mixture.structure)
    form = Form.of(frame.enter(mixture))
    width = form.layout.width(mixture.dims)
    size = tile_rows(width + 2 * mixture.components)
    buffer = np.empty((width, size))
    answers = np.empty((len(rows), *kind.columns(mixture.components)), dtype=kind.dtype)
    for chosen, x in tiles(block, frame, size):
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            log_joint = form.eta @ form.layout.features(x, buffer[:, : x.shape[1]])
            form.correct(log_joint, x)
        if not np.isfinite(log_joint.max(axis=0)).all():
            raise DataError("the rows are too far from the model: their log-densities overflow")
        answers[chosen] = kind.of(log_joint, form.common(x) - frame.log_volume)
    return answers
