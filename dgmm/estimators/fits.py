"""How a fit is planned and run, a pass at a time: the same for a model and for a search."""

import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

from dgmm import engine
from dgmm.em.progress import Progress
from dgmm.engine.plan import Plan
from dgmm.estimators.rows import Data
from dgmm.estimators.session import Session

if TYPE_CHECKING:
    from distributed import Client


class Fits(ABC):
    """The methods that plan and run a fit.

    An estimator says what its session is, and how it keeps what a run came to.
    """

    @abstractmethod
    def _session(
        self, X: Data, sample_weight: Data, client: "Client | None", noise: Data, labels: Data
    ) -> Session:
        """The session of a fit to these rows, checked and planned."""

    @abstractmethod
    def _keep(self, last: Progress, session: Session, seconds: float) -> None:
        """Take on the result of a run of so many ``seconds``, in one step, after its warnings."""

    def fit_passes(
        self,
        X: Data,
        sample_weight: Data = None,
        client: "Client | None" = None,
        meter: engine.Meter | None = None,
        noise: Data = None,
        labels: Data = None,
    ) -> Generator[Progress, None, None]:
        """Fit, a pass at a time.

        The estimator is fitted when the generator is exhausted; until then it is as it was before.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight, noise, labels : optional
            What lies beside the rows, in the same forms; as in ``fit``.
        client : distributed.Client, optional
            The cluster to use; by default the active one, else this process.
        meter : Meter, optional
            Counts the rows that are read, also within a pass.

        Yields
        ------
        Progress
            The state of the fit after each pass over the data.

        Raises
        ------
        UsageError, DataError
            If a parameter or the rows can't be used; both are a ``ValueError``.
        PlanError
            If the fit would not fit in memory.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0)
        >>> passes = [each.passes for each in model.fit_passes(rows)]
        >>> model.converged_
        True
        """
        session = self._session(X, sample_weight, client, noise, labels)
        yield from fit_session(self, session, meter)

    def plan(
        self,
        X: Data,
        sample_weight: Data = None,
        client: "Client | None" = None,
        noise: Data = None,
        labels: Data = None,
    ) -> Plan:
        """Work out what ``fit`` would need for ``X``, without fitting.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        sample_weight, noise, labels : optional
            What lies beside the rows, in the same forms; as in ``fit``.
        client : distributed.Client, optional
            The cluster to use; by default the active one, else this process.

        Returns
        -------
        Plan
            Blocks, tasks, bytes read and memory.

        Raises
        ------
        UsageError, DataError
            If a parameter or the rows can't be used.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> GaussianMixture(2).plan(rows).rows
        200
        """
        return self._session(X, sample_weight, client, noise, labels).plan


def session_of(
    estimator: Fits,
    X: Data,
    sample_weight: Data = None,
    client: "Client | None" = None,
    noise: Data = None,
    labels: Data = None,
) -> Session:
    """The session of a fit of ``estimator`` to ``X``, which its ``fit_passes`` runs.

    Nothing is fitted yet.  The parameters are those of ``Fits.plan``, and so is what it raises.
    """
    return estimator._session(X, sample_weight, client, noise, labels)


def fit_session(
    estimator: Fits, session: Session, meter: engine.Meter | None = None
) -> Generator[Progress, None, None]:
    """Fit ``estimator``, a pass at a time, by a ``session`` of it; as its ``fit_passes``."""
    session.plan.check()
    began = time.perf_counter()
    with closing(session.passes(meter)) as passes:
        for last in passes:
            yield last
    estimator._keep(last, session, time.perf_counter() - began)
