"""What a mixture says of each row, by the compiled kernel."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dgmm.kernels import native
from dgmm.kernels.native import LAYOUTS, UNUSABLE, factors, in_order, pieces, run, tail_constants
from dgmm.kernels.natural_parameters import NaturalParameters
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture

KINDS: Final = {"labels": np.int64, "score": np.float64, "proba": np.float64}
"""What compiled code has to say of rows, in its order, and the type of that."""

BOTH: Final = ("score", "proba")
"""What is said at once where "both" is asked for."""

FAR: Final = 1e100
"""Values this large may have squares that overflow."""


def row_outputs(kind: str, block: Block, frame: Frame, inside: Mixture) -> NDArray[Any] | None:
    """An output of ``KINDS``, or "both", of each of a block's rows; ``inside`` is in the ``frame``.

    Components are numbered, and have responsibilities, in their order, noise after the last.
    Log-densities are of the frame.  None if some row holds NaN, or is so far out that its
    log-densities overflow; or where components are factor analysers, of which there is none.
    """
    if inside.covariance_model.along_loadings:
        return None
    natural = NaturalParameters.of(inside, centre=True)
    shapes = {"proba": (len(natural.constants),)}
    names = BOTH if kind == "both" else (kind,)
    arrays = {
        each: np.empty((len(block.rows), *shapes.get(each, ())), KINDS[each]) for each in names
    }
    parameters = _parameters(natural)
    for piece in pieces(block):
        if inside.tails is not None and not (np.abs(piece.rows) < np.float64(FAR)).all():
            return None  # a compiled t density is finite wherever a row is, and is where none is
        start = piece.start - block.start
        chosen = slice(start, start + len(piece.rows))
        none = {each: np.empty(0, dtype) for each, dtype in KINDS.items()}
        wanted = none | {each: outputs[chosen] for each, outputs in arrays.items()}
        status = run(
            "row_outputs",
            LAYOUTS[natural.features].code,
            piece.rows.dtype == np.float32,
            native.SKIPS,
            piece.rows,
            in_order(frame.shift),
            in_order(frame.scale),
            *parameters,
            *wanted.values(),
        )
        if status == UNUSABLE:
            return None
    return np.column_stack(list(arrays.values())) if kind == "both" else arrays[kind]


def _parameters(natural: NaturalParameters) -> tuple[Array, Array, Array, Array, Array]:
    """What whitens rows, means, factors, constants, and what is told of t distributions."""
    mixture, nothing = natural.mixture, np.empty(0)
    if LAYOUTS[natural.features].whitens:
        factor = mixture.covariances.precisions_cholesky
        ones = np.ones(len(natural.center))
        return (in_order(factor), natural.center @ factor, ones, natural.constants, nothing)
    parameters, tails = in_order(factors(mixture)), tail_constants(natural)
    if tails is None:
        return (nothing, in_order(natural.center), parameters, natural.constants, nothing)
    return (
        nothing,
        in_order(natural.center),
        parameters,
        np.zeros_like(natural.constants),
        in_order(tails),
    )
