"""Gaussian mixture models for data that does not fit in memory, on Dask and Zarr."""

from dgmm.dataset import Dataset, open_dataset
from dgmm.errors import (
    BlockError,
    CheckpointError,
    ClusterError,
    DataError,
    DegenerateWarning,
    DgmmError,
    DgmmWarning,
    LostError,
    ModelFileError,
    ObjectiveFellWarning,
    PlanError,
    UsageError,
)
from dgmm.estimator import GaussianMixture, load
from dgmm.mixture import Mixture
from dgmm.plan import Plan
from dgmm.search import MixtureSearch, select
from dgmm.summary import Summary

__version__ = "0.1.0"

__all__ = [
    "BlockError",
    "CheckpointError",
    "ClusterError",
    "DataError",
    "Dataset",
    "DegenerateWarning",
    "DgmmError",
    "DgmmWarning",
    "GaussianMixture",
    "LostError",
    "Mixture",
    "MixtureSearch",
    "ModelFileError",
    "ObjectiveFellWarning",
    "Plan",
    "PlanError",
    "Summary",
    "UsageError",
    "load",
    "open_dataset",
    "select",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
