"""What a site of a federated fit says of its rows at the start, and the file that holds it."""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from dgmm.em.moments import DataMoments
from dgmm.em.sample import Sample
from dgmm.errors import ModelFileError
from dgmm.estimators.sufficient_statistics import SufficientStatistics
from dgmm.io import models, storage
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture, full_mixture

COUNTS: Final = ("rows", "weighted", "incomplete", "left_out")

NAMES: Final = ("mean", "scatter", "observed")


@dataclass(frozen=True)
class Summary:
    """What a site says of its rows at the start.

    Attributes
    ----------
    moments : DataMoments
        Without a sample; the range of a feature says only whether it has any.
    mixture : Mixture
        Fitted to the site's own rows.
    names : tuple of str or None
        Of the features.
    narrow : (D,) of bool
        Of which features most rows have one value.
    private : bool
        Whether its answers have noise.
    """

    moments: DataMoments
    mixture: Mixture
    names: tuple[str, ...] | None
    narrow: NDArray[np.bool_]
    private: bool = False

    @classmethod
    def of(cls, moments: DataMoments, mixture: Mixture, names: Any, private: bool = False) -> Self:
        """What of a fit's first pass and its end a site tells."""
        told = None if names is None else tuple(str(each) for each in names)
        return cls(_moments(*_told(moments)), mixture, told, moments.narrow, private)

    @classmethod
    def of_statistics(cls, statistics: SufficientStatistics, pairs: bool, names: Any) -> Self:
        """What ``statistics`` under one component say of rows, and nothing else; see ``pairs``."""
        frame, n_features = statistics.frame, statistics.center.shape[1]
        features, weight = statistics.covariance_model.centred_features, statistics.weight
        offset = statistics.sums[:, 1 : 1 + n_features] / weight
        about = features.shifted(statistics.sums, offset)[:, 1 + n_features :]
        scatter = features.matrices(about, n_features)[0] * frame.scale[:, None] * frame.scale
        mean = frame.shift + frame.scale * (statistics.center + offset)[0]
        spread = np.sqrt(np.diagonal(scatter) / weight)
        moments = DataMoments(
            *(statistics.rows, statistics.rows, weight, mean),
            scatter if pairs else np.diagonal(scatter),
            *(mean - spread, mean + spread),
            sample=_at(mean),
            invalid_row=None,
            observed=np.full(n_features, weight),
        )
        mixture = full_mixture(np.ones(1), mean[None], scatter[None] / weight, None)
        return cls.of(moments, mixture, names, private=True)

    def save(self, path: str) -> None:
        """Write it to a model file, whose record has more."""
        record, arrays = _told(self.moments)
        record["names"] = None if self.names is None else list(self.names)
        record["narrow"] = self.narrow.tolist()
        record["private"] = self.private
        models.write_model(path, self.mixture, {"record": record}, arrays, overwrite=False)

    @classmethod
    def load(cls, path: str) -> Self:
        """Read what ``save`` wrote; raises ``ModelFileError`` if that can't be had."""
        mixture, header, arrays = models.read_model(path)
        try:
            record, n_features = header["record"], mixture.n_features
            square = arrays["scatter"].ndim == 2
            one = (n_features,)
            shapes = {"mean": one, "observed": one, "scatter": one * (1 + square)}
            storage.expect(arrays, shapes)
            named = record["names"]
            return cls(
                _moments(record, arrays),
                mixture,
                None if named is None else tuple(str(each) for each in named),
                np.broadcast_to(np.array(record["narrow"], dtype=bool), one),
                bool(record["private"]),
            )
        except (KeyError, TypeError, ValueError, ModelFileError) as error:
            raise ModelFileError(f"{path} is no usable summary of a site: {error}") from error


def _told(moments: DataMoments) -> tuple[dict[str, Any], storage.Arrays]:
    """What a file says of ``moments``: no value of a row, but of features with one value that."""
    constant = moments.low == moments.high
    record: dict[str, Any] = {name: getattr(moments, name) for name in COUNTS}
    record |= {"weight": moments.weight, "constant": constant.tolist()}
    mean = np.where(constant, moments.low, moments.mean)
    return record, dict(zip(NAMES, (mean, moments.scatter, moments.observed), strict=True))


def _moments(record: dict[str, Any], arrays: storage.Arrays) -> DataMoments:
    """The moments that a file tells of; raises ``ModelFileError`` if they are those of no rows.

    Where a feature ranges says only whether it does.  The sample is of one row, at the mean: so
    nothing is said of quantiles.
    """
    rows, weighted, incomplete, left_out = (int(record[name]) for name in COUNTS)
    weight, constant = float(record["weight"]), np.array(record["constant"], dtype=bool)
    mean, scatter, observed = (arrays[name] for name in NAMES)
    squares = np.diagonal(scatter) if scatter.ndim == 2 else scatter
    possible = 0 < weighted <= rows and 0 < weight < np.inf and constant.shape == mean.shape
    if not possible or squares.min() < 0 or observed.min() < 0:
        raise ModelFileError("its moments are those of no rows")
    spread = np.sqrt(squares / np.where(observed > 0, observed, 1.0))
    spread = np.where(constant, 0.0, np.maximum(spread, np.spacing(np.abs(mean))))
    return DataMoments(
        *(rows, weighted, weight, mean, scatter, mean - spread, mean + spread),
        sample=_at(mean),
        invalid_row=None,
        observed=observed,
        incomplete=incomplete,
        left_out=left_out,
    )


def _at(mean: Array) -> Sample:
    """A sample of one row, at the ``mean`` (D,)."""
    return Sample(1, np.ones(1), np.zeros(1, np.int64), mean[None], np.ones(1))
