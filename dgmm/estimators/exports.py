"""What a fitted model becomes elsewhere: an ONNX graph, JSON, a distribution of SciPy's kind."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from dgmm.data import urls
from dgmm.estimators.fitted import Fitted
from dgmm.estimators.judging import judged
from dgmm.io import onnx_graph, plain, storage
from dgmm.model.frozen import FrozenMixture, frozen_component

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


class Exports(Fitted):
    """The methods that take a fitted mixture elsewhere."""

    def to_onnx(
        self,
        path: str | PathLike[str] | None = None,
        *,
        dtype: onnx_graph.Precision = "float32",
        overwrite: bool = False,
    ) -> Any:
        """Make an ONNX graph that judges rows as this model does, without dgmm.

        Its input is ``rows`` (N, D); its outputs are ``labels`` (N,), ``probabilities`` (N, K) and
        ``log_densities`` (N,), as ``predict``, ``predict_proba`` and ``score_samples`` give them.
        It computes in float64.  Rows must be complete: NaN gives NaN.

        Parameters
        ----------
        path : str or PathLike, optional
            A path or URL to write the graph to, too.
        dtype : {"float32", "float64"}, default="float32"
            The type of the rows and of the outputs.
        overwrite : bool, default=False
            Whether to replace a file that is there.

        Returns
        -------
        onnx.ModelProto
            The graph.

        Raises
        ------
        UsageError
            If onnx is not installed: it is the extra ``onnx``.
        DataError
            If a file is there already, unless ``overwrite``; or if it can't be written.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]])
        >>> graph = model.to_onnx()                                 # doctest: +SKIP
        >>> import onnxruntime                                      # doctest: +SKIP
        >>> session = onnxruntime.InferenceSession(graph.SerializeToString())  # doctest: +SKIP
        """
        fitted = self._fitted
        graph = onnx_graph.graph_of(*judged(fitted), dtype, _names(fitted))
        if path is not None:
            if not overwrite:
                urls.refuse_existing(str(path))
            storage.put(str(path), memoryview(graph.SerializeToString()))
        return graph

    def to_json(self, indent: int | None = None) -> str:
        """The parameters as JSON, to the last bit; ``GaussianMixture.from_json`` reads it.

        Parameters
        ----------
        indent : int, optional
            By how many blanks to indent; by default it is one line.

        Returns
        -------
        str
            An object with ``covariance_type``, ``feature_names``, ``weights``, ``means`` and
            ``covariances``; and ``n_factors``, ``noise_component`` or ``dof`` where the model has
            these.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters([1.0], [[0.0]], [[[2.0]]])
        >>> GaussianMixture.from_json(model.to_json()).covariances_.tolist()
        [[[2.0]]]
        """
        fitted = self._fitted
        return plain.dumps(judged(fitted)[0], _names(fitted), indent)

    def frozen(self, component: int | None = None) -> Any:
        """The mixture, or one component, as a frozen distribution of ``scipy.stats``.

        Parameters
        ----------
        component : int, optional
            The number of a component, from 0; by default the whole mixture.

        Returns
        -------
        FrozenMixture, or what SciPy has
            It has ``pdf``, ``logpdf``, ``rvs``, ``mean`` and ``cov``.  A component is a
            ``scipy.stats.multivariate_normal``, or a ``multivariate_t`` where tails are heavy.

        Raises
        ------
        UsageError
            If there is no such component.

        Examples
        --------
        >>> from dgmm import GaussianMixture
        >>> model = GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [4.0]], [[[1.0]], [[1.0]]])
        >>> round(float(model.frozen(1).cdf([4.0])), 6), round(float(model.frozen().pdf([4.0])), 4)
        (0.5, 0.1995)
        """
        mixture = self._fitted.mixture_
        if component is None:
            return FrozenMixture(judged(self._fitted)[0])
        return frozen_component(mixture, component)


def _names(model: GaussianMixture) -> list[str] | None:
    """What the features of a model are called, if they have names."""
    names = vars(model).get("feature_names_in_")
    return None if names is None else [str(each) for each in names]
