"""What types the public names have for who checks types: mypy reads this, nothing runs it."""

from pathlib import Path
from typing import assert_type

import dask.array as da
import numpy as np
from numpy.typing import NDArray

import dgmm
from dgmm import GaussianMixture, MixtureSearch

Numbers = NDArray[np.float64]
Labels = NDArray[np.int64]


def numpy_gives_numpy(model: GaussianMixture, rows: Numbers) -> None:
    assert_type(model.predict(rows), Labels)
    assert_type(model.predict_proba(rows), Numbers)
    assert_type(model.score_samples([[0.0, 1.0]]), Numbers)
    assert_type(model.predict(rows, noise=rows), Labels)
    assert_type(model.denoise(rows, noise=rows), Numbers)
    assert_type(model.fit_predict(rows, sample_weight=rows[:, 0]), Labels)


def what_is_lazy_gives_dask(model: GaussianMixture, rows: da.Array, path: Path) -> None:
    assert_type(model.predict(rows), da.Array)
    assert_type(model.score_samples("rows.zarr"), da.Array)
    assert_type(model.denoise(rows, noise=path), da.Array)
    assert_type(model.fit_predict(path), da.Array)
    assert_type(model.predict(dgmm.open_dataset(path)), da.Array)


def a_frame_gives_one_or_the_other(model: GaussianMixture, frame: object) -> None:
    assert_type(model.predict(frame), Labels | da.Array)
    assert_type(model.predict_proba(frame), Numbers | da.Array)


def a_search_is_as_a_model(search: MixtureSearch, rows: Numbers) -> None:
    assert_type(search.predict(rows), Labels)
    assert_type(search.fit(rows), MixtureSearch)
    assert_type(search.score(rows), float)


def parameters_are_arrays(model: GaussianMixture, rows: Numbers) -> None:
    assert_type(model.fit(rows), GaussianMixture)
    assert_type(model.means_, Numbers)
    assert_type(model.sample(3), tuple[Numbers, Labels])


def a_slip_in_a_name_is_seen() -> None:
    GaussianMixture(covariance_type="ful")  # type: ignore[arg-type]
    GaussianMixture(strategy="fast")  # type: ignore[arg-type]
    MixtureSearch(criterion="dic")  # type: ignore[arg-type]
