"""What a site of a federated fit says of its rows at the start, and the file that holds it."""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from dgmm.em.moments import DataMoments
from dgmm.em.sample import Sample
from dgmm.errors import ModelFileError
from dgmm.io import models, storage
from dgmm.model.mixture import Mixture

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
    """

    moments: DataMoments
    mixture: Mixture
    names: tuple[str, ...] | None

    @classmethod
    def of(cls, moments: DataMoments, mixture: Mixture, names: Any) -> Self:
        """What of a fit's first pass and its end a site tells."""
        told = None if names is None else tuple(str(each) for each in names)
        return cls(_moments(*_told(moments)), mixture, told)

    def save(self, path: str) -> None:
        """Write it to a model file, whose record has more."""
        record, arrays = _told(self.moments)
        record["names"] = None if self.names is None else list(self.names)
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
    one = np.ones(1)
    return DataMoments(
        *(rows, weighted, weight, mean, scatter, mean - spread, mean + spread),
        sample=Sample(1, one, np.zeros(1, np.int64), mean[None], one),
        invalid_row=None,
        observed=observed,
        incomplete=incomplete,
        left_out=left_out,
    )
