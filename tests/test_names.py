"""The names that types list are those of the families' members."""

from typing import Any, get_args

import pytest

from dgmm.data.sources import MISSING_CHUNKS, MissingChunks
from dgmm.em.criteria import CRITERIA, CriterionName
from dgmm.em.evaluate import PRECISIONS, Precision
from dgmm.em.init import METHODS, InitParams
from dgmm.em.starts import EFFORTS, Effort
from dgmm.em.strategies import STRATEGIES, StrategyName
from dgmm.kernels.observation import OBSERVATIONS, Missing
from dgmm.kernels.outputs import OUTPUTS, OutputKind
from dgmm.model.covariance import COVARIANCE_MODELS, CovarianceType


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (CovarianceType, COVARIANCE_MODELS),
        (CriterionName, CRITERIA),
        (Effort, EFFORTS),
        (InitParams, ["auto", *METHODS]),
        (Missing, OBSERVATIONS),
        (MissingChunks, MISSING_CHUNKS),
        (OutputKind, OUTPUTS),
        (Precision, PRECISIONS),
        (StrategyName, STRATEGIES),
    ],
)
def test_types_list_all_members(names: Any, family: Any) -> None:
    assert get_args(names) == tuple(family)
