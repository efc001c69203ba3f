"""Federated EM: a fit to the rows of many sites, which do not share them.

A Gaussian mixture is an exponential family, so an EM iteration needs of the rows nothing but sums,
and the sums of sites add up.  So who leads a fit sends each site the mixture of a round, gets its
``SufficientStatistics``, and gives their sum to the solver that a fit to all rows in one place
would have: the same steps, the same stop rule, the same end but for rounding.

**The start.**  The frame, the prior and ``reg_covar`` come of the sites' moments, and these add up.
The default ``reg_covar`` goes by the variance of all rows; where a few rows far away make up most
of it, by that of most rows, as in one place, whose quantiles are those of the mixtures that sites
fitted to their own rows: near, but not the same.  The first mixture comes of those that the sites
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Final

import numpy as np

from dgmm import engine
from dgmm.data import urls
from dgmm.data.transient import is_transient
from dgmm.em.first_mixtures import given_mixture
from dgmm.em.moments import DataMoments
from dgmm.em.progress import Candidate, Progress
from dgmm.em.spec import FitSpec
from dgmm.errors import DataError, DgmmError, UsageError
from dgmm.estimators import gaussian_mixture
from dgmm.estimators.gaussian_mixture import GaussianMixture
from dgmm.estimators.given_values import begun
from dgmm.estimators.incremental import together
from dgmm.estimators.led import Led
from dgmm.estimators.parameters import spec_of
from dgmm.estimators.record import become, reached, warn_of
from dgmm.estimators.site import QUESTION, first_question
from dgmm.estimators.site_summary import Summary
from dgmm.estimators.sufficient_statistics import SufficientStatistics, digest
from dgmm.estimators.telling import other_names
from dgmm.io import storage
from dgmm.io.mailbox import Mailbox, MailboxError, post, wait_for_answers
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture

CHANGED: Final = 1e-6
"""How far a site's weight and mean may be off by rounding, relative to their size."""


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
        ``weights_init``, ``means_init`` and ``precisions_init`` it begins there, with
        ``warm_start=True`` where it is, else where the sites' own fits lead.
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
    ...     answering = [
    ...         threading.Thread(target=join, args=(own, mailbox)) for mailbox, own in sites.items()
    ...     ]
    ...     for each in answering:
    ...         each.start()
    ...     model = federate(GaussianMixture(2, random_state=0), list(sites))
    ...     for each in answering:                                   # until they have the model
    ...         each.join()
    >>> model.means_.round().tolist(), model.fit_info_["rows"]
    ([[-0.0, 0.0], [9.0, 9.0]], 200)
    """
    sites = {str(each): Mailbox(str(each)) for each in mailboxes}
    if not sites or len(sites) < len(mailboxes):
        raise UsageError("federate needs a mailbox of its own for each site, and at least one")
    spec = _checked(model)
    with engine.one_blas_thread(), _refusing(sites):
        summaries = _summaries(model, spec, sites, timeout)
        led = Led.of(model, spec, list(summaries.values()))
        run, number = led.run, 0
        while run.trial is not None and not (run.state and spec.deadline.passed):
            number += 1
            mixture = led.context.frame.leave(run.trial.mixture)
            question = led.asking(mixture)
            statistics = _answers(question, number, sites, timeout)
            for name, each in statistics.items():
                if not summaries[name].private:
                    _check_rows(name, each, summaries[name].moments)
            total = together(question, question.sufficient_statistics_, statistics)
            run = run.step(led.state(run.trial, total, mixture))
            if tell is not None:
                tell(Round(number, run.best.objective, run.change, total.rows))
        if any(each.private for each in summaries.values()):  # noise may lower the objective
            run = replace(run, max_decrease=0.0)
        candidate = Candidate(led.spec, led.context, (run,))
        progress = Progress(number + 1, led.moments, (candidate,))
        attributes = reached(progress, led.names, "max_seconds", {"engine": f"{len(sites)} sites"})
    warn_of(attributes, candidate, stacklevel=3)
    become(model, **attributes)
    for mailbox in sites.values():
        _post_model(mailbox, mailbox.end, model)
    return model


@contextmanager
def _refusing(sites: Mapping[str, Mailbox]) -> Iterator[None]:
    """Tell sites that wait, where the fit can't go on by what they said."""
    for mailbox in sites.values():
        mailbox.begin()
    try:
        yield
    except MailboxError:  # they wait for it to go on
        raise
    except DgmmError as error:
        if not is_transient(error):
            for mailbox in sites.values():
                mailbox.refuse(error)
        raise


def _checked(model: GaussianMixture) -> FitSpec:
    """What ``model`` asks to be fitted; raises ``UsageError`` if sums of sites can't tell that."""
    spec = spec_of(model)
    inits = model.weights_init, model.means_init, model.precisions_init
    given = [value is not None for value in inits]
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
    elif spec.n_init > 1:
        why = "the sites' own fits lead to one start, and n_init asks for more"
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
    start = _given(model, spec)
    frame = None
    if start is not None:
        frame = Frame.of(*start.moments_of_components(), spec.covariance_model)
    question = first_question(model, spec.components if start is None else 1, frame)

    def write(url: str) -> None:
        storage.write(url, QUESTION, {}, question)

    def same(url: str) -> bool:
        there = storage.read(url, QUESTION)[1]
        return bool(
            {name: there.get(name) for name in question} == json.loads(json.dumps(question))
        )

    for mailbox in sites.values():
        url = mailbox.at("question", 0)
        urls.make_directory(mailbox.url)
        post(mailbox, url, partial(write, url), partial(same, url))
    wait_for_answers(sites, 0, timeout)
    summaries = {name: Summary.load(box.at("answer", 0)) for name, box in sites.items()}
    (first, other), *_ = summaries.items()
    if differs := other_names(model, other.names) if model.warm_start else None:
        raise UsageError(f"the start is a model of {differs}")
    for name, summary in summaries.items():
        if _features(summary) != _features(other):
            raise DataError(
                f"{name} is refused: its features are {_features(summary)}, and those of {first} "
                f"are {_features(other)}"
            )
        if summary.moments.scatter.ndim != other.moments.scatter.ndim:
            raise DataError(f"{name} is refused: it answered another question than {first}")
    return summaries


def _given(model: GaussianMixture, spec: FitSpec) -> Mixture | None:
    """The start that ``model`` has, if it has one."""
    if model.warm_start and hasattr(model, "mixture_"):
        mixture: Mixture = model.mixture_
        return mixture
    if model.means_init is None:
        return None
    start = begun(spec, model, np.shape(model.means_init)[-1])
    assert start.weights is not None
    assert start.means is not None
    assert start.precisions is not None
    return given_mixture(spec.covariance_model, start.weights, start.means, start.precisions)


def _features(summary: Summary) -> str:
    """The features of a site, for a message."""
    names = summary.names
    return f"{summary.mixture.n_features} without names" if names is None else ", ".join(names)


def _answers(
    question: GaussianMixture, number: int, sites: Mapping[str, Mailbox], timeout: float
) -> dict[str, SufficientStatistics]:
    """What the sites say of the mixture of a round."""
    for mailbox in sites.values():
        _post_model(mailbox, mailbox.at("question", number), question)
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
