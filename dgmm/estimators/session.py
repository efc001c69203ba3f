"""What every run shares, a fit or a selection: rows, specs, plan, engine, checkpoint, loop.

``GaussianMixture``, ``MixtureSearch`` and the command line are faces on it.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dgmm import engine
from dgmm.data.clients import active_client
from dgmm.data.dataset import Dataset
from dgmm.em.columns import Columns
from dgmm.em.criteria import CRITERIA, Criterion
from dgmm.em.first_pass import FirstPassSpec
from dgmm.em.fit import fit, too_few
from dgmm.em.holdout import HELD, MANY, share_of
from dgmm.em.init import sample_seed
from dgmm.em.progress import Progress, Stopped
from dgmm.em.selection import Choice, Selection, Single
from dgmm.em.spec import FitSpec
from dgmm.engine.kubernetes import Pods, pods
from dgmm.engine.plan import Plan, plan
from dgmm.errors import DataError, UsageError
from dgmm.estimators.callbacks import Callback, PassesOf, callbacks_of, telling
from dgmm.estimators.given_values import begun
from dgmm.estimators.labelled import labelled
from dgmm.estimators.parameters import observation_of, prior_of, spec_of, threads_of
from dgmm.estimators.passes import of_fit, of_selection
from dgmm.estimators.rows import Data, open_rows
from dgmm.estimators.sparse import of_sparse
from dgmm.io.checkpoint import Checkpoint, fingerprint, writing_nbytes
from dgmm.model.choice import choose
from dgmm.model.lazy import lazy

if TYPE_CHECKING:
    from distributed import Client

    # Which imports this.
    from dgmm.estimators.gaussian_mixture import GaussianMixture


@dataclass(frozen=True, eq=False)
class Session:
    """What one run needs, checked as far as that takes no pass.

    A session serves one run: its clock starts when it is made, and it draws random numbers.

    Attributes
    ----------
    dataset : Dataset
    names : (D,) or None
        What the features are called.
    specs : tuple of FitSpec
        What is to be fitted, side by side.
    together : FitSpec
        One that needs the memory of all of them.
    choose_by : callable
        Makes the choice among them, given the seed of the sample.
    client : Client or None
        The cluster; None for the active one, else this process.
    threads : int or None
        Of this process.
    memory, cache, checkpoint, resume, random_state
        As in ``GaussianMixture``.
    record : dict
        What a checkpoint's fingerprint has beside, or instead of, the parts of the first spec.
    callbacks : tuple of callable
        Called with an ``Event`` for what happens.
    passes_of : callable
        Tells the callbacks what the passes brought.
    """

    dataset: Dataset
    names: NDArray[Any] | None
    specs: tuple[FitSpec, ...]
    together: FitSpec
    choose_by: Callable[[int], Choice]
    client: "Client | None"
    threads: int | None
    memory: str | int | None
    cache: str | int
    checkpoint: str | PathLike[str] | None
    resume: bool
    random_state: Any
    record: dict[str, Any] = field(default_factory=dict)
    callbacks: tuple[Callback, ...] = ()
    passes_of: PassesOf = of_fit

    @lazy
    def plan(self) -> Plan:
        """What the run will need."""
        writing = 0 if self.checkpoint is None else writing_nbytes(self.dataset, self.together)
        limits = self.threads, self.memory, self.cache, writing
        return plan(self.dataset, self.together, self.client or active_client(), *limits)

    def pods(self, workers: int, threads: int) -> Pods:
        """What to ask of Kubernetes for the run on so many workers of so many threads."""
        return pods(self.dataset, self.together, workers, threads, self.memory, self.cache)

    def passes(self, meter: engine.Meter | None = None) -> Generator[Progress, None, None]:
        """Run: yields the progress after every sweep, once that is in the checkpoint.

        ``meter`` counts the rows swept.  Raises ``PlanError`` if the run would not fit in memory.
        """
        self.plan.check()
        meter = meter or engine.Meter()
        steps = self._steps(meter)
        if not self.callbacks:
            return steps
        return telling(steps, self.passes_of, self.callbacks, self.plan, meter)

    def _steps(self, meter: engine.Meter) -> Generator[Progress, None, None]:
        """The same without callbacks."""
        swept = engine.over(self.dataset, self.client, self.threads, meter, self.plan.cache_bytes)
        checkpoint = self._checkpoint()
        stopped = None if checkpoint is None else checkpoint.resume()
        in_memory_sweep = partial(engine.in_memory_sweep, threads=self.threads)
        with closing(swept) as sweep:
            first_pass_spec = self._first_pass_spec(stopped)
            choice = self.choose_by(first_pass_spec.seed)
            columns = Columns(self.names, self.dataset.source.integers)
            elsewhere = engine.elsewhere(sweep, self.plan.thread_bytes)
            steps = fit(
                *(sweep, self.specs, first_pass_spec, in_memory_sweep, choice),
                *(stopped, meter.tell, elsewhere, columns),
            )
            for last in engine.each_on_one_blas_thread(steps, self.threads):
                if checkpoint is not None and (stopped is None or last.passes > stopped.passes):
                    checkpoint.save(last, self.specs[0].random)
                yield last

    def _first_pass_spec(self, stopped: Stopped | None) -> FirstPassSpec:
        """What the first sweep is to find, enough for all specs; its seed is that of the sample."""
        of_specs = [spec.first_pass_spec(*self.dataset.layout) for spec in self.specs]
        largest = max(of_specs, key=lambda spec: spec.sample)
        first_pass_spec = replace(largest, pairs=any(spec.pairs for spec in of_specs))
        if stopped is None:
            return first_pass_spec
        seed = sample_seed(stopped.random)  # by chance, if nobody gave one
        return replace(first_pass_spec, seed=seed)

    def _checkpoint(self) -> Checkpoint | None:
        """The run's checkpoint, if it has one; emptied unless the run may resume from it."""
        if self.checkpoint is None:
            return None
        of = fingerprint(self.dataset, self.specs[0], self.random_state, **self.record)
        checkpoint = Checkpoint(str(self.checkpoint), of)
        checkpoint.prepare()
        if not self.resume:
            checkpoint.discard()
        return checkpoint


def fitting(
    model: "GaussianMixture",
    X: Data,
    sample_weight: Data = None,
    client: "Client | None" = None,
    noise: Data = None,
    labels: Data = None,
) -> Session:
    """The session of a fit of ``model``, which does not change."""
    beside = {"weights": sample_weight, "noise": noise, "labels": labels}
    dataset, names, (spec,) = _opened(X, beside, [model])
    means = _means(model, client)
    callbacks = callbacks_of(model)
    return Session(
        dataset, names, (spec,), spec, lambda seed: Single(), *means, callbacks=callbacks
    )


def selecting(
    models: Sequence["GaussianMixture"],
    criterion: str,
    X: Data,
    sample_weight: Data = None,
    client: "Client | None" = None,
    noise: Data = None,
    labels: Data = None,
) -> Session:
    """The session of a choice among ``models`` by ``criterion``; the models do not change.

    They differ in size and covariance type only.
    """
    chosen: Criterion = choose("criterion", criterion, CRITERIA)
    if not all(prior_of(model).is_density for model in models):
        raise UsageError(
            "a variational fit chooses the number of components by itself: fit one "
            "BayesianGaussianMixture, with the most components that there may be"
        )
    beside = {"weights": sample_weight, "noise": noise, "labels": labels}
    dataset, names, specs = _opened(X, beside, models)

    def choose_by(seed: int) -> Choice:
        share = _share(dataset, specs, seed) if chosen.holds_out else HELD
        return Selection(chosen, share)

    record = {
        "components": [spec.components for spec in specs],
        "covariance_type": [spec.covariance_model.name for spec in specs],
        "n_factors": [spec.covariance_model.factor_count for spec in specs],
        "criterion": criterion,
    }
    together = _together(specs, dataset)
    means = _means(models[0], client)
    watched = callbacks_of(models[0]), partial(of_selection, criterion=criterion)
    return Session(dataset, names, specs, together, choose_by, *means, record, *watched)


def _opened(
    X: Data, beside: Mapping[str, Data], models: Sequence["GaussianMixture"]
) -> tuple[Dataset, NDArray[Any] | None, tuple[FitSpec, ...]]:
    """The rows, the names of their features, and the specs of what ``models`` fit to them."""
    specs = [spec_of(model) for model in models]
    taking = copy(models[0])  # takes the names and the number of features, as scikit-learn does
    taking.__dict__.pop("feature_names_in_", None)
    dataset = open_rows(taking, X, beside, reset=True, sparse=True)
    noisy = dataset.noise is not None
    both = zip(specs, models, strict=True)
    specs = [replace(spec, observation=observation_of(model, noisy)) for spec, model in both]
    if dataset.source.sparse:
        specs = [of_sparse(spec, dataset.beside) for spec in specs]
    for spec in specs:
        if dataset.rows < spec.components:
            raise DataError(
                f"Expected n_samples >= n_components but got n_components = "
                f"{spec.components}, n_samples = {dataset.rows}: {too_few(dataset.rows)}"
            )
    if dataset.labels is not None:
        specs = labelled(specs, dataset.labels)
    both = zip(specs, models, strict=True)
    names = vars(taking).get("feature_names_in_")
    begins = tuple(begun(spec, model, dataset.n_features, names) for spec, model in both)
    return dataset, names, begins


def _means(
    model: "GaussianMixture", client: "Client | None"
) -> tuple[
    "Client | None",
    int | None,
    str | int | None,
    str | int,
    str | PathLike[str] | None,
    bool,
    Any,
]:
    """The means a session runs with: its fields from ``client`` to ``random_state``."""
    means = model.memory, model.cache, model.checkpoint, model.resume, model.random_state
    return client, threads_of(model), *means


def _share(dataset: Dataset, specs: Sequence[FitSpec], seed: int) -> float:
    """The share of rows to hold out; see ``dgmm.em.holdout``."""
    if dataset.rows > MANY:
        return HELD
    numbers = np.arange(dataset.rows)
    if dataset.weights is not None:
        spans = [dataset.row_range(index) for index in range(dataset.blocks)]
        numbers = np.flatnonzero(
            np.concatenate([dataset.weights.read(*span) for span in spans]) > 0
        )
    return share_of(numbers, seed, max(spec.components for spec in specs))


def _together(specs: Sequence[FitSpec], dataset: Dataset) -> FitSpec:
    """A spec that needs the memory of all ``specs`` together."""
    rows, n_features = dataset.rows, dataset.n_features
    widest = max(specs, key=lambda spec: spec.covariance_model.centred_features.width(n_features))
    total = 0
    for spec in specs:
        first_pass_spec = spec.first_pass_spec(*dataset.layout)
        runs = spec.abreast(rows, n_features, min(first_pass_spec.sample, rows), near=False)
        total += spec.components * runs
    return replace(widest, components=total, n_init=1, effort="low")
