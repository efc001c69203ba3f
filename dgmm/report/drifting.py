"""How rows differ from those of a fit, in words and on a page of HTML (``dgmm drift``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dgmm.model.lazy import Late
from dgmm.report.pages import Table, page

if TYPE_CHECKING:
    from dgmm.inference.drift import Drift, Test

figures = Late("dgmm.report.figures")

FEATURES: Final = 12
"""Spreads of no more features than these are shown: of those that changed most."""


def in_words(drift: Drift) -> dict[str, str]:
    """What is said of all rows together, by what it is about."""
    before, known = drift.score_before, math.isfinite(drift.weight_before)
    return {
        "rows": f"{drift.rows:,}",
        "before": f"{drift.weight_before:,.8g}" if known else "parameters, taken for known",
        "score": f"{drift.score:.9g} ± {drift.score_error:.1e} nats a row"
        + ("" if before is None else f"; before {before:.9g}"),
        "test": f"{p_value(drift.test)}, F = {drift.test.statistic:.4g} of {drift.test.degrees}",
        "effect": f"{drift.test.effect:.3g} nats a row",
    }


def p_value(test: Test) -> str:
    """A p-value: below what is of use to know, only that."""
    return f"p = {test.p_value:.2g}" if test.p_value >= 1e-9 else "p < 1e-9"


def drift_page(
    drift: Drift, names: Sequence[str], model: str, data: str, allowed: str, alarm: bool
) -> str:
    """The page of rows ``data`` beside those of a ``model``.

    ``allowed`` says beyond what there is an alarm; it is empty where nothing was asked.
    """
    return page(
        "drift.html",
        model=model,
        data=data,
        alarm=alarm,
        allowed=allowed,
        facts=in_words(drift),
        changes=figures.changes(drift),
        components=_components(drift),
        spreads=_spreads(drift, names),
    )


def _components(drift: Drift) -> Table:
    rows = [
        (
            *(str(k), f"{each.weight_before:.4f}", f"{each.weight_now:.4f}", p_value(each.weight)),
            *(f"{each.moved:.4f}", p_value(each.mean), p_value(each.covariance)),
        )
        for k, each in enumerate(drift.components)
    ]
    heads = ("component", "weight before", "weight now", "same weight", "mean moved (sd)")
    return Table(
        "Weights and means; beside each, the probability of so large a change by chance",
        (*heads, "same mean", "same covariance"),
        rows,
    )


def _spreads(drift: Drift, names: Sequence[str]) -> Table | None:
    """The spreads of the features that changed most; None if none are known."""

    def change(j: int) -> float:
        ratios = [each.spread[j] for each in drift.components if each.spread[j] > 0]
        return max((abs(math.log(ratio)) for ratio in ratios), default=0.0)

    most = sorted(range(len(names)), key=change, reverse=True)[:FEATURES]
    if not any(change(j) for j in most):
        return None
    shown = sorted(most)
    rows = [
        (str(k), *(f"{each.spread[j]:.3f}" if each.spread[j] > 0 else "" for j in shown))
        for k, each in enumerate(drift.components)
    ]
    which = "all features" if len(shown) == len(names) else f"{len(shown)} of {len(names)} features"
    caption = f"Spreads of {which}, by what they were"
    return Table(caption, ("component", *(names[j] for j in shown)), rows)
