"""What a fitted model's record says, and whether a record that is read can be one."""

from collections.abc import Sequence
from typing import Any, Final

import sklearn.cluster
import sklearn.metrics  # noqa: F401

from dgmm.em.collapse import Seen, collapses
from dgmm.em.evaluate import ALONE, Trial
from dgmm.em.sample import Sample
from dgmm.errors import (
    ModelFileError,
)
from dgmm.estimators.summary import Summary
from dgmm.kernels.answers import answer
from dgmm.model.mixture import Mixture
from dgmm.model.structure import Array

LOOKED_AT = 20_000
"""How many rows of a sample are looked at to see why components collapsed."""

RECORD: Final[dict[str, tuple[type, ...]]] = {
    "converged": (bool,),
    "n_iter": (int,),
    "lower_bound": (float, int),
    "lower_bounds": (list,),
    "fit_info": (dict,),
}
"""What a model file tells of the fit, and of what type that is."""


def check_record(record: dict[str, Any], mixture: Mixture, summary: Summary | None) -> None:
    """Raise ``ModelFileError`` unless a record has the types and shapes that ``load`` uses."""
    for name, kinds in RECORD.items():
        if type(record[name]) not in kinds:
            raise ModelFileError(
                f"its record has {record[name]!r:.40} for {name}, which is no {kinds[0].__name__}"
            )
    if not {type(each) for each in record["lower_bounds"]} <= {float, int}:
        raise ModelFileError("its record has lower_bounds that are no numbers")
    names = record["feature_names"]
    if names is not None and (
        not isinstance(names, list)
        or len(names) != mixture.dims
        or not all(isinstance(each, str) for each in names)
    ):
        raise ModelFileError(f"its record does not name each of the {mixture.dims} features")
    if summary is not None and (
        summary.structure is not mixture.structure or summary.about.shape != mixture.means.shape
    ):
        raise ModelFileError("its statistics are not of the model's structure and shape")


def collapsed_of(
    known: Sequence[int],
    bare: Trial,
    counts: Array,
    reg: Array,
    sampled: tuple[Sample, Mixture] | None = None,
) -> dict[str, Any]:
    """What a fit's record says of components that collapsed, and why they did.

    They are those ``known`` to have, and those that do in the M-step without ``reg_covar``, whose
    mixture in the frame is ``bare``'s.  ``counts`` (K,) are their rows; the fitted mixture (of the
    data) tells which rows of a sample are whose.
    """
    collapsed = sorted({*known, *bare.collapsed})
    seen = None
    if collapsed and sampled is not None:
        rows = sampled[0].first(LOOKED_AT).rows
        seen = Seen(rows, answer(rows, sampled[1], "labels"))
    why = collapses(bare.mixture, collapsed, counts, reg, ALONE, seen)
    return {"collapsed": collapsed, "collapses": [each.record() for each in why]}


def what_is_left(fitted: dict[str, Any]) -> str:
    """What a fit that did not converge was short of."""
    gap, resolution = fitted["fit_info_"]["estimated_gap"], fitted["fit_info_"]["resolution"]
    if gap is not None:
        return (
            f"the objective could still grow by {gap:.2e}, as estimated, "
            f"{gap / resolution:.2g} of the statistical resolution"
        )
    if not fitted["lower_bounds_"]:
        return "what the objective could still grow by is not known yet"
    change = fitted["lower_bound_"] - fitted["lower_bounds_"][-1]
    return f"the last one changed the objective by {change:.3g}"
