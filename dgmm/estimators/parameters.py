"""A model's parameters, checked, and what they ask for."""

from typing import TYPE_CHECKING, Any

import numpy as np
from dask.system import CPU_COUNT
from sklearn.utils import check_random_state

from dgmm.em.deadline import Deadline
from dgmm.em.fit_context import PRECISIONS
from dgmm.em.init import METHODS
from dgmm.em.noise_spec import NoiseSpec
from dgmm.em.prior_spec import NO_PRIOR, PriorSpec
from dgmm.em.priors import PRIORS
from dgmm.em.spec import FitSpec
from dgmm.em.starts import EFFORTS
from dgmm.em.strategies import STRATEGIES
from dgmm.errors import UsageError
from dgmm.kernels import choice
from dgmm.kernels.observation import OBSERVATIONS, Noisy, Observation
from dgmm.model.choice import choose
from dgmm.model.covariance import COVARIANCE_TYPES
from dgmm.model.covariance_model import CovarianceModel
from dgmm.model.tails import RULES, TailsSpec

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


def spec_of(model: "GaussianMixture") -> FitSpec:
    """What a model's parameters ask for, checked; its time runs from now."""
    covariance_model = covariance_model_of(model)
    choose("init_params", model.init_params, {"auto": None, **METHODS})
    choose("effort", model.effort, EFFORTS)
    counts = [("n_components", 1), ("max_iter", 0), ("n_init", 1)]
    if model.n_jobs is not None and model.n_jobs != -1:
        counts.append(("n_jobs", 1))
    for name, least in counts:
        value = getattr(model, name)
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name} must be an integer of at least {least}, not {value!r}")
    for name in ("tol", "reg_covar", "max_seconds", "resolution"):
        value = getattr(model, name)
        if name != "resolution" and value is None:
            continue
        if not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
            raise UsageError(f"{name} must be a number of at least 0, not {value!r}")
    return FitSpec(
        covariance_model=covariance_model,
        components=int(model.n_components),
        strategy=choose("strategy", model.strategy, STRATEGIES),
        tol=None if model.tol is None else float(model.tol),
        resolution=float(model.resolution),
        reg_covar=None if model.reg_covar is None else float(model.reg_covar),
        max_iter=int(model.max_iter),
        n_init=int(model.n_init),
        init_params=model.init_params,
        effort=model.effort,
        kernel=choice.chosen(),
        precision=choose("precision", model.precision, {name: name for name in PRECISIONS}),
        random=random_of(model),
        observation=observation_of(model),
        noise=_noise_with(noise_of(model), prior_of(model)),
        tails=tails_of(model),
        deadline=Deadline.after(model.max_seconds),
        prior=_prior_for(covariance_model, prior_of(model)),
    )


def covariance_model_of(model: "GaussianMixture") -> CovarianceModel:
    """What a model's covariances may be, checked, and that they go with the rest."""
    kind: CovarianceModel = choose("covariance_type", model.covariance_type, COVARIANCE_TYPES)
    sized = kind.sized(getattr(model, "n_factors", None))
    if sized.along_loadings:
        for name, plain in (("missing", ("raise", "drop")), ("tails", ("normal",))):
            if (value := getattr(model, name)) not in plain:
                raise UsageError(
                    f"covariance_type={sized.name!r} does not go with {name}={value!r}: leave out "
                    "one of the two"
                )
        if model.precisions_init is not None:
            raise UsageError(
                f"precisions_init does not go with covariance_type={sized.name!r}: make a model of "
                "loadings by from_parameters, and begin there with warm_start=True"
            )
    return sized


def _prior_for(covariance_model: CovarianceModel, prior: PriorSpec) -> PriorSpec:
    """The ``prior``, if there is such a one of the covariances."""
    if prior.kind != NO_PRIOR.kind and not covariance_model.has_priors:
        names = ", ".join({kind.name: 1 for kind in COVARIANCE_TYPES.values() if kind.has_priors})
        raise UsageError(
            f"there is no prior={prior.kind!r} of {covariance_model.name!r} covariances: leave it "
            f"out, or choose a covariance_type of {names}"
        )
    return prior


def prior_of(model: "GaussianMixture") -> PriorSpec:
    """What a model's objective holds beside the likelihood."""
    prior = model.prior
    if prior is None:
        return NO_PRIOR
    if isinstance(prior, str):
        spec: PriorSpec = choose("prior", prior, PRIORS)()
        return spec
    if not isinstance(prior, PriorSpec):
        raise UsageError(
            f"prior must be None, a ConjugatePrior or one of {', '.join(PRIORS)}, not {prior!r:.80}"
        )
    return prior


def observation_of(model: "GaussianMixture", noise: bool = False) -> Observation:
    """What NaN means to a model, where rows have ``noise`` or not."""
    kernel = choice.chosen()
    observation: Observation = choose("missing", model.missing, OBSERVATIONS)(kernel)
    fitted = getattr(model, "mixture_", None)
    if noise and (model.tails != "normal" or (fitted is not None and fitted.tails is not None)):
        raise UsageError(
            'rows with known errors (noise=) do not go with tails="student": leave out one'
        )
    kinds = [COVARIANCE_TYPES.get(model.covariance_type)]
    kinds += [] if fitted is None else [fitted.covariance_model]
    for kind in kinds if noise else ():
        if kind is not None and kind.along_loadings:
            raise UsageError(
                f"rows with known errors (noise=) do not go with covariance_type={kind.name!r}: "
                "leave out one"
            )
    return Noisy(kernel, observation) if noise else observation


def noise_of(model: "GaussianMixture") -> NoiseSpec | None:
    """The noise component that a model asks for, checked; None if it asks for none."""
    value, volume = model.noise_component, model.noise_volume
    flag = isinstance(value, bool | np.bool_)
    if not flag and not (isinstance(value, int | float | np.number) and 0 < value < 1):
        raise UsageError(
            "noise_component must be True, False, or the weight to begin with, between 0 and 1, "
            f"not {value!r}"
        )
    if volume is None:
        return NoiseSpec(None if flag else float(value)) if value else None
    if flag and not value:
        raise UsageError(f"noise_volume={volume!r} is of no use without noise_component=True")
    known = isinstance(volume, int | float | np.number) and not isinstance(volume, bool)
    if not known or not 0 < volume < np.inf:
        raise UsageError(f"noise_volume must be a number above 0, not {volume!r}")
    return NoiseSpec(None if flag else float(value), float(volume))


def _noise_with(noise: NoiseSpec | None, prior: PriorSpec) -> NoiseSpec | None:
    """The ``noise`` component, if it goes with the ``prior``."""
    if noise is not None and not prior.is_density:
        raise UsageError(f"prior={prior.kind!r} has no noise component: leave out one of the two")
    return noise


def tails_of(model: "GaussianMixture") -> TailsSpec | None:
    """What a model asks of the tails, checked; None where components are normal."""
    value, dof = model.tails, model.dof
    if choose("tails", value, {"normal": False, "student": True}) is False:
        if dof is not None:
            raise UsageError(f'dof={dof!r} is of no use without tails="student"')
        return None
    if noise_of(model) is not None:
        raise UsageError('tails="student" has no noise component: leave out one of the two')
    if (kind := prior_of(model).kind) != NO_PRIOR.kind:
        raise UsageError(f'prior={kind!r} has no tails="student": leave out one of the two')
    if model.fixed is not None:
        raise UsageError('fixed holds nothing of tails="student": leave out one of the two')
    if dof is None:
        return TailsSpec(RULES["each"])
    if dof == "common":
        return TailsSpec(RULES["common"])
    known = isinstance(dof, int | float | np.number) and not isinstance(dof, bool)
    if not known or not dof > 0:
        raise UsageError(f'dof must be None, "common" or a number above 0, not {dof!r}')
    return None if dof == np.inf else TailsSpec(RULES["given"], float(dof))


def random_of(model: "GaussianMixture") -> Any:
    """A model's source of random numbers."""
    try:
        return check_random_state(model.random_state)
    except ValueError as error:
        raise UsageError(
            f"random_state must be None, a RandomState or an integer from 0 to 2^32 - 1, not "
            f"{model.random_state!r}"
        ) from error


def draws_of(model: "GaussianMixture") -> int:
    """The seed of what a model draws for rows, by its ``random_state``."""
    return int(random_of(model).randint(np.iinfo(np.int32).max))


def threads_of(model: "GaussianMixture") -> int | None:
    """How many threads of this process; None for as many as there are processors."""
    return CPU_COUNT if model.n_jobs == -1 else model.n_jobs
