"""Groups of components, as estimators tell them (dgmm/inference/merging.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dgmm import engine
from dgmm.errors import UsageError
from dgmm.estimators.conditionals import model_of
from dgmm.estimators.fitted import Fitted
from dgmm.estimators.judging import judged
from dgmm.estimators.parameters import threads_of
from dgmm.estimators.record import become
from dgmm.estimators.row_outputs import outputs_of, row_outputs_of, warn_without_noise
from dgmm.estimators.rows import Data, open_rows
from dgmm.inference import merging
from dgmm.inference.merging import WITHOUT_ROWS, CriterionName, Merging
from dgmm.kernels.outputs import OUTPUTS
from dgmm.kernels.sweep import Sweep
from dgmm.model.choice import choose

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


class Grouping(Fitted):
    """The methods that join components to groups, and label rows by these."""

    @property
    def groups_(self) -> tuple[int, ...]:
        """The group of each component that was kept; there is none before ``keep_groups``."""
        kept = vars(self._fitted).get("groups_")
        if kept is None:
            raise AttributeError(f"this {type(self).__name__} keeps no groups: see keep_groups")
        groups: tuple[int, ...] = kept
        return groups

    def merge(
        self,
        X: Data = None,
        criterion: CriterionName = "entropy",
        sample_weight: Data = None,
        noise: Data = None,
        sweep: Sweep | None = None,
    ) -> Merging:
        """Join components to groups, two at a time, and tell the whole tree.

        A cluster that is not normal takes several components.  By the entropy of the labels, the
        two groups are joined that rows are the least sure about: whose join takes most from it.
        That takes one pass over the rows, or some more where these are unlike what the mixture
        expects.  The other criteria need no rows.

        Parameters
        ----------
        X : rows (N, D), optional
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame; for "entropy".
        criterion : {"entropy", "runnalls", "bhattacharyya"}, default="entropy"
            By what: the entropy of the labels of ``X`` [1]_; what a join adds to a bound of the
            relative entropy of the mixture from that of the groups [2]_; or the Bhattacharyya
            distance of the groups [3]_.
        sample_weight : (N,), optional
            Weights of the rows, in the same forms.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.
        sweep : callable, optional
            The engine to use; by default the one that ``fit`` would use.

        Returns
        -------
        Merging
            The tree; the model stays as it is.

        Raises
        ------
        UsageError
            If there are no rows for "entropy", or some for another criterion; for heavy tails by
            another criterion.
        DataError
            If the rows can't be used.

        References
        ----------
        .. [1] J.-P. Baudry, A. E. Raftery, G. Celeux, K. Lo and R. Gottardo, "Combining mixture
           components for clustering", 2010.
        .. [2] Runnalls, "Kullback-Leibler approach to Gaussian mixture reduction", 2007.
        .. [3] Hennig, "Methods for merging Gaussian mixture components", 2010.

        Examples
        --------
        >>> import numpy as np
        >>> from dgmm import GaussianMixture
        >>> rows = np.random.default_rng(0).uniform(size=(3000, 2)) * [8, 1]  # a strip,
        >>> rows[2000:] = rows[2000:] * [0.125, 1] + [2, 9]                 # and a square
        >>> model = GaussianMixture(5, random_state=0).fit(rows)
        >>> found = model.merge(rows)
        >>> bool(found.levels[1] < 0.001 < found.levels[4]), len(set(found.groups(2)))
        (True, 2)
        """
        model = self._fitted
        choose("criterion", criterion, dict.fromkeys(("entropy", *WITHOUT_ROWS)))
        if criterion in WITHOUT_ROWS:
            if any(each is not None for each in (X, sample_weight, noise)):
                raise UsageError(f"criterion={criterion!r} needs no rows: leave them out")
            return merging.merge_without_rows(judged(model)[0], criterion)
        if X is None:
            raise UsageError(
                "criterion='entropy' needs rows: give those that the model was fitted to, or one "
                f"of {', '.join(map(repr, WITHOUT_ROWS))}"
            )
        dataset = open_rows(model, X, {"weights": sample_weight, "noise": noise})
        warn_without_noise(model, dataset)
        sweep = sweep or engine.over(dataset, threads=threads_of(model))
        wanted = row_outputs_of(model, OUTPUTS["proba"], noise=dataset.noise is not None)
        return merging.merge_by_entropy(sweep, wanted)

    def keep_groups(self, groups: Sequence[int] | None) -> Self:
        """Keep the group of each component in the model, as ``groups_``, and in its file.

        Another fit or update drops it.

        Parameters
        ----------
        groups : (K,) of int, or None
            Of ``Merging.groups``, or your own; none are kept after None.

        Returns
        -------
        self
            The model.

        Raises
        ------
        UsageError
            If there is not one group for each component, or a number between is of none.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.3, 0.3, 0.4], [[0.0], [1.0], [9.0]], [1.0, 1.0, 1.0], covariance_type="spherical"
        ... )
        >>> model = model.keep_groups(model.merge(criterion="bhattacharyya").groups())
        >>> model.groups_, model.predict_groups([[0.7], [8.0]]).tolist()
        ((0, 0, 1), [0, 1])
        """
        model = self._fitted
        kept = None if groups is None else checked_groups(groups, model.mixture_.components)
        become(model, groups_=kept)
        return self

    def predict_groups(
        self, X: Data, groups: Sequence[int] | None = None, noise: Data = None
    ) -> Any:
        """The most probable group of each row of ``X``, (N,).

        The probability of a group is the sum of those of its components, so this may be another
        group than that of the most probable component.

        Parameters
        ----------
        X : rows (N, D)
            Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
        groups : (K,) of int, optional
            The group of each component; by default the ones that were kept, ``groups_``.
        noise : (N, D) or (N, D, D), optional
            Known errors of the rows, in the same forms: their variances, or their covariances.

        Returns
        -------
        array (N,) of int
            -1 is noise, and -2 a row of which nothing was observed.  A Dask array where the rows
            are lazy.

        Raises
        ------
        UsageError
            If no groups are given and none were kept, or they can't be those of the components.
        DataError
            If the rows can't be used.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.3, 0.3, 0.4], [[0.0], [2.0], [1.0]], [1.0, 1.0, 1.0], covariance_type="spherical"
        ... )
        >>> model.predict([[1.0]]).tolist(), model.predict_groups([[1.0]], [0, 0, 1]).tolist()
        ([2], [1])
        """
        model = self._fitted
        chosen = vars(model).get("groups_") if groups is None else groups
        if chosen is None:
            raise UsageError(
                "by which groups? Give groups=, or keep some in the model: "
                "model.keep_groups(model.merge(rows).groups())"
            )
        checked = checked_groups(chosen, model.mixture_.components)
        return outputs_of(model, X, merging.groups_output(checked), noise=noise)

    def reduce(self, n_components: int) -> GaussianMixture:
        """A model of fewer components that is near this one, made without rows.

        Components are joined by Runnalls's criterion; what was joined becomes one component of the
        same weight, mean and covariance.

        Parameters
        ----------
        n_components : int
            How many components are left, from 1 to K.

        Returns
        -------
        GaussianMixture
            A model in its own right, with full covariances; it has seen no rows.  Its
            ``fit_info_["divergence_bound"]`` is an upper bound of the relative entropy of this
            model from it, in nats.

        Raises
        ------
        UsageError
            If there can't be so many components, or for heavy tails.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters(
        ...     [0.5, 0.3, 0.2], [[0.0], [1.0], [9.0]], [1.0, 1.0, 1.0], covariance_type="spherical"
        ... )
        >>> less = model.reduce(2)
        >>> less.means_.ravel().round(3).tolist(), round(less.fit_info_["divergence_bound"], 3)
        ([0.375, 9.0], 0.084)
        """
        model = self._fitted
        mixture, _ = judged(model)
        merging_path = merging.merge_without_rows(mixture, "runnalls")
        groups = merging_path.groups(n_components)
        less = merging.reduced(mixture, groups)
        reduced = model_of(model, less, range(mixture.n_features))
        bound = float(merging_path.levels[n_components - 1])
        become(reduced, fit_info_={**reduced.fit_info_, "divergence_bound": bound})
        return reduced


def checked_groups(groups: object, components: int) -> tuple[int, ...]:
    """The group of each component; raises ``UsageError`` if they can't be that."""
    numbers = np.asarray(groups)
    if numbers.shape != (components,) or numbers.dtype.kind not in "iu":
        raise UsageError(
            f"groups must be whole numbers, one for each of the {components} components, not "
            f"{groups!r:.60}"
        )
    if set(numbers.tolist()) != set(range(int(numbers.max()) + 1)):
        raise UsageError(
            f"groups must be numbered 0, 1, 2, ..., and each have a component; {groups!r:.60} are "
            "not"
        )
    return tuple(numbers.tolist())
