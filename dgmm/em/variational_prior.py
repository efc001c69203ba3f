"""The prior of a variational posterior, as users ask for it."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dgmm.em.moments import DataMoments
from dgmm.em.prior_spec import (
    PriorSpec,
    covariance_of,
    is_number,
    of_numbers,
    plain,
    positive_definite,
)
from dgmm.errors import UsageError
from dgmm.model.arrays import Array
from dgmm.model.choice import choose
from dgmm.model.concentration import CONCENTRATIONS, ConcentrationType
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.frame import Frame
from dgmm.model.prior import Prior
from dgmm.model.variational import Variational


@dataclass(frozen=True, eq=False)
class VariationalPrior(PriorSpec):
    """What ``BayesianGaussianMixture`` holds beside the likelihood; its parameters, as there."""

    weight_concentration_prior_type: ConcentrationType = "dirichlet_process"
    weight_concentration_prior: float | None = None
    mean_precision_prior: float | None = None
    mean_prior: ArrayLike | None = None
    degrees_of_freedom_prior: float | None = None
    covariance_prior: ArrayLike | None = None

    name: ClassVar[str] = "variational"
    kind: ClassVar[str] = Variational.name
    is_density: ClassVar[bool] = False

    def unit(self, weight: float) -> float:
        return 1.0 / weight

    def needs_covariance(self, covariance_model: CovarianceModel) -> bool:
        return self.covariance_prior is None and covariance_model.correlates

    def check(self, covariance_model: CovarianceModel, n_features: int) -> None:
        choose(
            "weight_concentration_prior_type", self.weight_concentration_prior_type, CONCENTRATIONS
        )
        for name in ("weight_concentration_prior", "mean_precision_prior"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and 0 < value < np.inf):
                raise UsageError(f"{name} must be a number above 0, not {value!r}")
        freedom = self.degrees_of_freedom_prior
        if freedom is not None and not (is_number(freedom) and n_features - 1 < freedom < np.inf):
            shown = f"{freedom:.3f}" if is_number(freedom) else repr(freedom)
            raise UsageError(
                "The parameter 'degrees_of_freedom_prior' should be greater than "
                f"{n_features - 1}, but got {shown}."
            )
        if self.mean_prior is not None:
            of_numbers("mean_prior", self.mean_prior, (n_features,))
        if self.covariance_prior is not None:
            positive_definite(
                "covariance_prior", self.covariance_prior, covariance_model, n_features
            )

    def resolved(
        self,
        moments: DataMoments,
        frame: Frame,
        reg: Array,
        covariance_model: CovarianceModel,
        components: int,
    ) -> Prior:
        n_features = len(moments.mean)
        value, freedom = self.weight_concentration_prior, self.degrees_of_freedom_prior
        precision, mean = self.mean_precision_prior, self.mean_prior
        scatter = (
            covariance_model.single(covariance_of(moments))
            if self.covariance_prior is None
            else positive_definite(
                "covariance_prior", self.covariance_prior, covariance_model, n_features
            )
        )
        centre = moments.mean if mean is None else of_numbers("mean_prior", mean, (n_features,))
        kind = CONCENTRATIONS[self.weight_concentration_prior_type]
        return Variational(
            reg,
            covariance_model,
            moments.weight,
            kind(1.0 / components if value is None else float(value)),
            (centre - frame.shift) / frame.scale,
            1.0 if precision is None else float(precision),
            float(n_features) if freedom is None else float(freedom),
            covariance_model.estimate_of(scatter, (1, n_features)).rescaled(1.0 / frame.scale),
        )

    def record(self) -> dict[str, Any]:
        values = {name: plain(value) for name, value in asdict(self).items()}
        return {"name": self.name, **values}
