"""Gaussian mixture models for data that does not fit in memory, on Dask and Zarr.

Public names are loaded when they are first used, so ``import dgmm`` imports none of the packages
that dgmm is built on.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgmm.data.dataset import Dataset
    from dgmm.data.opening import open_dataset
    from dgmm.em.conjugate_prior import ConjugatePrior
    from dgmm.engine.plan import Plan
    from dgmm.errors import (
        BlockError,
        CheckpointError,
        ClusterError,
        ClusterLostError,
        DataError,
        DegenerateWarning,
        DgmmError,
        DgmmWarning,
        MissingNoiseWarning,
        ModelFileError,
        ObjectiveFellWarning,
        PlanError,
        UsageError,
    )
    from dgmm.estimators.alignment import Alignment, align
    from dgmm.estimators.bayesian_mixture import BayesianGaussianMixture, load
    from dgmm.estimators.callbacks import Event
    from dgmm.estimators.comparison import Comparison, compare
    from dgmm.estimators.federation import federate
    from dgmm.estimators.gaussian_mixture import GaussianMixture
    from dgmm.estimators.search import MixtureSearch, select
    from dgmm.estimators.site import join
    from dgmm.estimators.sufficient_statistics import SufficientStatistics
    from dgmm.inference.bootstrap import Bootstrap, Intervals
    from dgmm.inference.drift import Drift
    from dgmm.inference.merging import Merging
    from dgmm.inference.odd_rows import Threshold
    from dgmm.inference.overview import Overview
    from dgmm.inference.privacy import Privacy
    from dgmm.inference.standard_errors import StandardErrors
    from dgmm.model.mixture import Mixture
    from dgmm.report.document import write_report
    from dgmm.report.watching import ProgressBar

__version__ = "0.1.0"

__all__ = [
    "Alignment",
    "BayesianGaussianMixture",
    "BlockError",
    "Bootstrap",
    "CheckpointError",
    "ClusterError",
    "ClusterLostError",
    "Comparison",
    "ConjugatePrior",
    "DataError",
    "Dataset",
    "DegenerateWarning",
    "DgmmError",
    "DgmmWarning",
    "Drift",
    "Event",
    "GaussianMixture",
    "Intervals",
    "Merging",
    "MissingNoiseWarning",
    "Mixture",
    "MixtureSearch",
    "ModelFileError",
    "ObjectiveFellWarning",
    "Overview",
    "Plan",
    "PlanError",
    "Privacy",
    "ProgressBar",
    "StandardErrors",
    "SufficientStatistics",
    "Threshold",
    "UsageError",
    "align",
    "compare",
    "federate",
    "join",
    "load",
    "open_dataset",
    "select",
    "write_report",
]

_MODULES = {
    "data.dataset": ("Dataset",),
    "data.opening": ("open_dataset",),
    "em.conjugate_prior": ("ConjugatePrior",),
    "engine.plan": ("Plan",),
    "estimators.alignment": ("Alignment", "align"),
    "estimators.bayesian_mixture": ("BayesianGaussianMixture", "load"),
    "estimators.callbacks": ("Event",),
    "estimators.comparison": ("Comparison", "compare"),
    "estimators.federation": ("federate",),
    "estimators.gaussian_mixture": ("GaussianMixture",),
    "estimators.search": ("MixtureSearch", "select"),
    "estimators.site": ("join",),
    "estimators.sufficient_statistics": ("SufficientStatistics",),
    "inference.bootstrap": ("Bootstrap", "Intervals"),
    "inference.drift": ("Drift",),
    "inference.merging": ("Merging",),
    "inference.odd_rows": ("Threshold",),
    "inference.overview": ("Overview",),
    "inference.privacy": ("Privacy",),
    "inference.standard_errors": ("StandardErrors",),
    "model.mixture": ("Mixture",),
    "report.document": ("write_report",),
    "report.watching": ("ProgressBar",),
}
"""The public names of each module, but for those of ``errors``."""


def __getattr__(name: str) -> Any:
    if name == "plot":
        return import_module("dgmm.plot")
    if name not in __all__:
        raise AttributeError(f"module 'dgmm' has no attribute {name!r}")
    module = next((module for module, names in _MODULES.items() if name in names), "errors")
    value = globals()[name] = getattr(import_module(f"dgmm.{module}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__", "plot"]
