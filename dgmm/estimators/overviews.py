"""What rows look like under a model, as estimators tell it (dgmm/inference/overview.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dgmm import engine
from dgmm.estimators.conditionals import places_of
from dgmm.estimators.fitted import Fitted
from dgmm.estimators.judging import judged
from dgmm.estimators.parameters import threads_of
from dgmm.estimators.row_outputs import row_outputs_of, warn_without_noise
from dgmm.estimators.rows import Data, open_rows
from dgmm.inference import overview
from dgmm.inference.overview import Overview, Query
from dgmm.kernels.outputs import JUDGED
from dgmm.kernels.sweep import Sweep

if TYPE_CHECKING:
    from dgmm.estimators.conditionals import Feature


class Overviews(Fitted):
    """The method that tells what rows look like."""

    def overview(
        self,
        X: Data,
        features: Sequence[Feature] | None = None,
        noise: Data = None,
        sweep: Sweep | None = None,
    ) -> Overview:
        """Count rows by where they are and how certain their labels are, in one pass.

        It is what pictures of any number of rows are drawn from: ``dgmm.plot.pairs``,
        ``dgmm.plot.uncertainty`` and ``dgmm.write_report``.  Rows count as one each.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        features : sequence of int or str, optional
            Those that rows are counted by, at most 12; by default the 6 that tell most of the
            components, by the share of their variance that lies between these.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.
        sweep : callable, optional
            The engine to use; by default the one that ``fit`` would use.

        Returns
        -------
        Overview
            Counts, which take no more memory for more rows.

        Raises
        ------
        UsageError
            For features that are not there, or too many.
        DataError
            If the rows can't be used, or have other features than those of the fit.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> rows[100:] += 9
        >>> model = GaussianMixture(2, random_state=0).fit(rows)
        >>> seen = model.overview(rows)
        >>> seen.labels.tolist(), seen.pair(0, 1).shape
        ([100, 100], (64, 64))
        """
        model = self._fitted
        mixture, _ = judged(model)
        places = (
            overview.most_telling(mixture, overview.SHOWN)
            if features is None
            else tuple(places_of(model, features))
        )
        dataset = open_rows(model, X, {"noise": noise})
        warn_without_noise(model, dataset)
        wanted = row_outputs_of(model, JUDGED, noise=dataset.noise is not None)
        kept = vars(model).get("threshold_")
        below = -np.inf if kept is None else kept.log_density
        query = Query(wanted, places, overview.edges_of(mixture, places), below)
        return overview.overview(sweep or engine.over(dataset, threads=threads_of(model)), query)
