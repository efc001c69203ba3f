"""What a search has to show of its candidates: a record of each, and tables of all."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from dgmm.em.progress import Candidate
from dgmm.errors import DegenerateWarning
from dgmm.model.covariance import described

Record = dict[str, Any]
"""What ``MixtureSearch.results_`` says of a candidate."""


def records(candidates: Sequence[Candidate], names: Sequence[str], criterion: str) -> list[Record]:
    """The ``results_`` of a search: what each candidate is, and came to.

    ``names`` are their covariance types as they were asked for: some have two names.
    """
    return [
        {**_record(each, criterion), "covariance_type": name}
        for each, name in zip(candidates, names, strict=True)
    ]


def _record(candidate: Candidate, criterion: str) -> Record:
    best = candidate.run.best
    count = best.mixture.covariance_model.factor_count
    return {
        "n_components": best.mixture.components,
        "covariance_type": best.mixture.covariance_model.name,
        **({} if count is None else {"n_factors": count}),
        "parameters": candidate.context.model.free_parameters(best.mixture),
        "score": best.score,
        criterion: candidate.value,
        "iterations": len(candidate.run.trace),
        "unbounded": list(candidate.unbounded),
        "dropped_after": candidate.dropped,
    }


def params(record: Record) -> dict[str, Any]:
    """The parameters by which a candidate differs from others."""
    names = ("n_components", "covariance_type", "n_factors")
    return {name: record[name] for name in names if name in record}


def edge(results: Sequence[Record], best: int) -> str | None:
    """At which edge of the sizes tried number ``best`` is; None if there is none beyond it."""
    tried = [result["n_components"] for result in results]
    value = tried[best]
    if value == max(tried) > min(tried):
        return "most"
    return "fewest" if 1 < value == min(tried) < max(tried) else None


def cv_results(results: Sequence[Record], criterion: str) -> dict[str, Any]:
    """The results in the form of scikit-learn's searches: a list or an array for each name."""
    values = np.array([each[criterion] for each in results])
    unbounded = np.array([bool(each["unbounded"]) for each in results])
    return {
        "params": [params(record) for record in results],
        **_param_factors(results),
        "param_n_components": np.array([each["n_components"] for each in results]),
        "param_covariance_type": np.array([each["covariance_type"] for each in results]),
        "mean_test_score": -values,
        "rank_test_score": np.lexsort((values, unbounded)).argsort() + 1,
    }


def _param_factors(results: Sequence[Record]) -> dict[str, Any]:
    """The numbers of factors of all candidates, for ``cv_results_``; nothing if none has any."""
    counts = [each.get("n_factors") for each in results]
    known = any(each is not None for each in counts)
    return {"param_n_factors": np.array(counts, dtype=object)} if known else {}


def mclust_table(results: Sequence[Record]) -> dict[str, dict[int, float]]:
    """Minus the BIC of each covariance type and number of components; NaN where unbounded."""
    table: dict[str, dict[int, float]] = {}
    for each in results:
        value = np.nan if each["unbounded"] else -float(each["bic"])
        table.setdefault(described(each), {})[int(each["n_components"])] = value
    return table


def warn_of_left_out(
    results: Sequence[Record], criterion: str, best: float, stacklevel: int
) -> None:
    """Say that candidates were not compared that would have won but for an unbounded component."""
    better = [each for each in results if each["unbounded"] and each[criterion] < best]
    if better:
        named = ", ".join(f"{each['n_components']} {described(each)}" for each in better[:6])
        warnings.warn(
            f"left out of the choice, though their {criterion} is lower: {named}"
            f"{' and others' * (len(better) > 6)}. Each has a component that nothing but reg_covar "
            "holds up, so that how likely it is depends on that alone. Such a component is of rows "
            "with ties, or of a few rows far from all others: see results_, or leave those out",
            DegenerateWarning,
            stacklevel=stacklevel,
        )
