"""Federated EM: a fit to the rows of many sites, which do not share them.

A Gaussian mixture is an exponential family, so an EM iteration needs of the rows nothing but sums,
and the sums of sites add up.  So who leads a fit sends each site the mixture of a round, gets its
``SufficientStatistics``, and gives their sum to the solver that a fit to all rows in one place
would have: the same steps, the same stop rule, the same end but for rounding.

**The start.**  The frame, the prior and ``reg_covar`` come of the sites' moments, and these add up.
The default ``reg_covar`` goes by the variance of all rows, also where a few rows far away make up
most of it: what quantiles say, nobody knows here.  The first mixture comes of those that the sites
fitted to their own rows: side by side, each with the weight of its site, they are one mixture of
all rows, which is reduced to K components (Runnalls, Kullback-Leibler approach to Gaussian mixture
reduction, 2007).

**Nothing is lost.**  The mailboxes keep all questions and answers.  The same call with the same
mailboxes reads what is there, comes to the same questions, and goes on at the first without answer.

**Who is refused.**  Statistics say under which mixture they were taken.  Those of another mixture,
of another number, weight or mean of rows than the site had at the start, and the same from two
sites, are refused by the site's name.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from os import PathLike
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from dgmm import engine
from dgmm.data import urls
from dgmm.em.evaluate import FitContext, State
from dgmm.em.fit import check
from dgmm.em.model import Trial
from dgmm.em.moments import DataMoments
from dgmm.em.progress import Candidate, Progress
from dgmm.em.solver import RunState
from dgmm.em.spec import FitSpec
from dgmm.em.subsamples import Samples
from dgmm.errors import DataError, UsageError
from dgmm.estimators import gaussian_mixture
from dgmm.estimators.gaussian_mixture import GaussianMixture
from dgmm.estimators.incremental import together
from dgmm.estimators.parameters import begun, spec_of
from dgmm.estimators.record import become, reached, warn_of
from dgmm.estimators.site import QUESTION, first_question
from dgmm.estimators.site_summary import Summary
from dgmm.estimators.sufficient_statistics import SufficientStatistics, digest
from dgmm.inference import merging
from dgmm.io import storage
from dgmm.io.mailbox import Mailbox, post, wait_for_answers
from dgmm.model.mixture import Mixture, full_mixture
from dgmm.model.statistics import Statistics

CHANGED: Final = 1e-6
"""How far a site's weight and mean may be off by rounding, relative to their size."""

NOT_SENT: Final = {
    **dict.fromkeys(("weights_init", "means_init", "precisions_init", "max_seconds")),
    **dict.fromkeys(("n_jobs", "memory", "callbacks")),
    **{"warm_start": False, "cache": "auto", "verbose": 0},
}
"""What parameters sites are not told: of the start, which they see, and of machines."""


@dataclass(frozen=True)
class Round:
    """What a round of a federated fit came to.

    Attributes
    ----------
    number : int
        From 1.
    objective : float
        Of the best mixture so far: the mean over the rows of all sites.
    change : float
        By how much the round raised it; infinity at first.
    rows : int
        Of all sites.
    """

    number: int
    objective: float
    change: float
    rows: int


def federate(
    model: GaussianMixture,
    mailboxes: Sequence[str | PathLike[str]],
    timeout: float = 3600.0,
    tell: Callable[[Round], None] | None = None,
) -> GaussianMixture:
    """Fit ``model`` to the rows of many sites, which do not share them.

    Each site has a mailbox, and answers what is asked there by ``join``.  The fit is that of all
    rows in one place, from the same start, but for rounding.  The same call, made again, goes on
    where it stood.

    Parameters
    ----------
    model : GaussianMixture
        Says what is to be fitted, as for ``fit``; it becomes the fitted model.  With
        ``weights_init``, ``means_init`` and ``precisions_init`` it begins there, else where the
        sites' own fits lead.
    mailboxes : sequence of str or PathLike
        A directory for each site, at a path or URL.  Messages call sites by these.
    timeout : float, default=3600
        How many seconds to wait for the answers to a question.
    tell : callable, optional
        Is told of each ``Round``.

    Returns
    -------
    GaussianMixture
        ``model``.  The mailboxes have it, too.

    Raises
    ------
    UsageError
        If there is no federated fit of such a model.
    DataError
        If a site fails, does not answer in time, answers for another model or for other rows, or
        has the rows of another site; it is named.

    See Also
    --------
    dgmm.join : Answers for a site.

    Examples
    --------
    >>> import threading, tempfile, numpy as np
    >>> from dgmm import GaussianMixture, federate, join
    >>> rows = np.random.default_rng(0).normal(size=(200, 2))
    >>> rows[100:] += 9
    >>> with tempfile.TemporaryDirectory() as place:
    ...     sites = {f"{place}/north": rows[:90], f"{place}/south": rows[90:]}
    ...     for mailbox, own in sites.items():
    ...         threading.Thread(target=join, args=(own, mailbox, None, 60)).start()
    ...     model = federate(GaussianMixture(2, random_state=0), list(sites), timeout=60)
    >>> model.means_.round().tolist(), model.fit_info_["rows"]
    ([[-0.0, 0.0], [9.0, 9.0]], 200)
    """
    sites = {str(each): Mailbox(str(each)) for each in mailboxes}
    if not sites or len(sites) < len(mailboxes):
        raise UsageError("federate needs a mailbox of its own for each site, and at least one")
    spec = _checked(model)
    with engine.one_blas_thread():
        summaries = _summaries(model, spec, sites, timeout)
        led = Led.of(model, spec, list(summaries.values()))
        run, number = led.run, 0
        while run.trial is not None and not (run.state and spec.deadline.passed):
            number += 1
            mixture = led.context.frame.leave(run.trial.mixture)
            asked = led.asking(mixture)
            statistics = _answers(asked, number, sites, timeout)
            for name, each in statistics.items():
                _check_rows(name, each, summaries[name].moments)
            total = together(asked, asked.sufficient_statistics_, statistics)
            run = run.step(led.state(run.trial, total, mixture))
            if tell is not None:
                tell(Round(number, run.best.objective, run.change, total.rows))
        candidate = Candidate(led.spec, led.context, (run,))
        progress = Progress(number + 1, led.moments, (candidate,))
        found = reached(progress, led.names, "max_seconds", {"engine": f"{len(sites)} sites"})
    warn_of(found, candidate, stacklevel=3)
    become(model, **found)
    for mailbox in sites.values():
        _post_model(mailbox, mailbox.end, model)
    return model


def _checked(model: GaussianMixture) -> FitSpec:
    """What ``model`` asks to be fitted; raises ``UsageError`` if sums of sites can't tell that."""
    spec = spec_of(model)
    inits = model.weights_init, model.means_init, model.precisions_init
    given = [each is not None for each in inits]
    why = ""
    if spec.covariance_model.along_loadings:
        why = f"covariance_type={spec.covariance_model.name!r} has no sums that add up"
    elif spec.tails is not None:
        why = "tails='student' has no sums that add up"
    elif spec.noise is not None:
        why = "a noise component has the box of all rows, which sites don't tell"
    elif not spec.prior.is_density:
        why = f"prior={spec.prior.kind!r} begins at a posterior, which needs rows"
    elif model.fixed is not None:
        why = "fixed holds what a start has, and sites are not told of it"
    elif model.checkpoint is not None:
        why = "the mailboxes are its checkpoint"
    elif any(given) and not all(given):
        why = "a start that is given in part needs rows for the rest"
    if why:
        raise UsageError(f"there is no federated fit of this model: {why}; leave that out")
    return replace(spec, n_init=1)


def _post_model(mailbox: Mailbox, url: str, model: GaussianMixture) -> None:
    """Have ``model`` lie in a ``mailbox`` at ``url``."""

    def same() -> bool:
        return digest(gaussian_mixture.load(url).mixture_) == digest(model.mixture_)

    post(mailbox, url, partial(model.save, url), same)


def _summaries(
    model: GaussianMixture, spec: FitSpec, sites: Mapping[str, Mailbox], timeout: float
) -> dict[str, Summary]:
    """What each site says at the start."""
    given = model.weights_init is not None or (model.warm_start and hasattr(model, "mixture_"))
    asked = first_question(model, 1 if given else spec.components)

    def write(url: str) -> None:
        storage.write(url, QUESTION, {}, asked)

    def same(url: str) -> bool:
        there = storage.read(url, QUESTION)[1]
        return bool({name: there.get(name) for name in asked} == json.loads(json.dumps(asked)))

    for mailbox in sites.values():
        url = mailbox.at("question", 0)
        urls.make_directory(mailbox.url)
        post(mailbox, url, partial(write, url), partial(same, url))
    wait_for_answers(sites, 0, timeout)
    found = {name: Summary.load(each.at("answer", 0)) for name, each in sites.items()}
    (first, other), *_ = found.items()
    for name, each in found.items():
        if _features(each) != _features(other):
            raise DataError(
                f"{name} is refused: its features are {_features(each)}, and those of {first} are "
                f"{_features(other)}"
            )
        if each.moments.scatter.ndim != other.moments.scatter.ndim:
            raise DataError(f"{name} is refused: it answered another question than {first}")
    return found


def _features(summary: Summary) -> str:
    """The features of a site, for a message."""
    names = summary.names
    return f"{summary.mixture.n_features} without names" if names is None else ", ".join(names)


def _answers(
    asked: GaussianMixture, number: int, sites: Mapping[str, Mailbox], timeout: float
) -> dict[str, SufficientStatistics]:
    """What the sites say of the mixture of a round."""
    for mailbox in sites.values():
        _post_model(mailbox, mailbox.at("question", number), asked)
    wait_for_answers(sites, number, timeout)
    return {
        name: SufficientStatistics.load(mailbox.at("answer", number))
        for name, mailbox in sites.items()
    }


def _check_rows(name: str, statistics: SufficientStatistics, moments: DataMoments) -> None:
    """Raise ``DataError`` unless a site's ``statistics`` are of the rows that it had at the start.

    The shares of a row sum to 1, so whatever the mixture, counts sum to the weight, and sums to
    that of the rows; of these, where no value is missing.
    """
    frame, sums = statistics.frame, statistics.sums
    n_features = len(moments.mean)
    offset = (moments.mean - frame.shift) / frame.scale
    spread = np.sqrt(moments.variance) / frame.scale
    whole = sums[:, 1 : 1 + n_features] + sums[:, :1] * statistics.center
    off = np.abs(whole.sum(axis=0) / statistics.weight - offset) / (1 + np.abs(offset) + spread)
    same = abs(statistics.weight / moments.weight - 1) < CHANGED
    same = same and (moments.incomplete > 0 or bool(off.max() < CHANGED))
    if statistics.rows != moments.rows or not same:
        raise DataError(
            f"{name} is refused: its sums are of {statistics.rows:,} rows of weight "
            f"{statistics.weight:.8g}, and not of the {moments.rows:,} rows of weight "
            f"{moments.weight:.8g} that it had at the start. Begin anew, with empty mailboxes"
        )


@dataclass(frozen=True)
class Led:
    """What stays the same while rounds are led.

    Attributes
    ----------
    spec : FitSpec
    context : FitContext
    run : RunState
        Before the first round.
    moments : DataMoments
        Of all sites together.
    names : (D,) or None
        Of the features.
    model : GaussianMixture
        What sites are asked with, but for the mixture.
    """

    spec: FitSpec
    context: FitContext
    run: RunState
    moments: DataMoments
    names: NDArray[Any] | None
    model: GaussianMixture

    @classmethod
    def of(cls, model: GaussianMixture, spec: FitSpec, told: Sequence[Summary]) -> "Led":
        """What comes of what the sites ``told``; raises ``DataError`` if there is no fit."""
        moments = reduce(add, (each.moments for each in told))
        check(moments, spec.components)
        context = FitContext.of(
            *(moments, spec.covariance_model, spec.reg_covar, spec.observation),
            prior=spec.prior,
            components=spec.components,
        )
        # Sums that come from sites have each component's own quadratic part.
        context = replace(context, total=None, moments=None, probe=None)
        spec = begun(spec, model, len(moments.mean))
        if not spec.given:
            start = context.frame.leave(_start(told, context, spec.components))
            spec = replace(
                spec,
                weights=start.weights,
                means=start.means,
                precisions=start.covariances.precisions(),
            )
        samples = Samples(moments.sample, moments.weighted, engine.in_memory_sweep)
        (run,) = spec.strategy.begin(moments, context, spec, samples)
        names = None if told[0].names is None else np.asarray(told[0].names, dtype=object)
        return cls(spec, context, run, moments, names, _asking(model, run, context, moments, names))

    def asking(self, mixture: Mixture) -> GaussianMixture:
        """The model that a round asks about, with a ``mixture`` of the data."""
        asked = copy(self.model)
        become(asked, mixture_=mixture)
        return asked

    def state(self, trial: Trial, total: SufficientStatistics, mixture: Mixture) -> State:
        """What the statistics of all sites say of a ``trial``, a ``mixture`` of the data."""
        statistics = Statistics(total.sums, total.center, 0.0, 0.0, total.weight, total.rows)
        objective = total.bound(mixture)
        score = objective - self.context.model.prior.log_density(trial.mixture)
        return State(trial.mixture, statistics, objective, score, trial.empty, trial.singular)


def _asking(
    model: GaussianMixture,
    run: RunState,
    context: FitContext,
    moments: DataMoments,
    names: NDArray[Any] | None,
) -> GaussianMixture:
    """What sites are asked with: a model whose statistics are what its start expects of the rows.

    They say in what frame and under what prior sums are to be taken, and nothing of any site.
    """
    assert run.trial is not None
    start = run.trial.mixture
    expected = State(start, _expected(start, context, moments), 0.0, 0.0)
    asked: GaussianMixture = clone(model).set_params(**NOT_SENT)
    become(
        asked,
        mixture_=context.frame.leave(start),
        sufficient_statistics_=SufficientStatistics.of(expected, context),
        converged_=False,
        n_iter_=0,
        lower_bounds_=[],
        lower_bound_=0.0,
        fit_info_={},
        n_features_in_=start.n_features,
        feature_names_in_=names,
    )
    return asked


def _expected(mixture: Mixture, context: FitContext, moments: DataMoments) -> Statistics:
    """The statistics that a ``mixture`` (in the frame) expects of all rows."""
    counts = moments.weight * mixture.weights
    second = counts[:, None, None] * mixture.covariances.dense()
    square = context.model.covariance_model.centred_features.of_matrices(second)
    sums = np.concatenate([counts[:, None], np.zeros_like(mixture.means), square], axis=1)
    return Statistics(sums, mixture.means, 0.0, 0.0, moments.weight, moments.rows)


def _start(summaries: Sequence[Summary], context: FitContext, components: int) -> Mixture:
    """The first mixture (in the frame): of those of all sites, reduced to so many components.

    Raises ``DataError`` if they have fewer together.
    """
    weights = np.concatenate([each.moments.weight * each.mixture.weights for each in summaries])
    means = np.concatenate([each.mixture.means for each in summaries])
    dense = np.concatenate([each.mixture.covariances.dense() for each in summaries])
    live = weights > 0
    if live.sum() < components:
        raise DataError(
            f"the sites' own fits have {live.sum()} components together, fewer than {components}: "
            "fit fewer, or give a start"
        )
    found = full_mixture(weights[live] / weights.sum(), means[live], dense[live], None)
    groups = merging.merge_without_rows(found, "runnalls").groups(components)
    less = context.frame.enter(merging.reduced(found, groups))
    moments = reduce(add, (each.moments for each in summaries))
    own, n_features = context.model.covariance_model, less.n_features
    before = replace(less, covariances=own.of_variances(np.ones(n_features), components))
    return context.m_step_of(_expected(less, context, moments), before).mixture
