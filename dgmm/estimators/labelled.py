"""Fits to rows with labels, checked: what is asked of the observation model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from dgmm.data.source import Source
from dgmm.em.spec import FitSpec
from dgmm.errors import UsageError
from dgmm.kernels.labelled import Labelled

STARTS: Final = ("auto", "kmeans")
"""What ``init_params`` may be: a start is by labels."""


def labelled(specs: Sequence[FitSpec], labels: Source) -> list[FitSpec]:
    """The ``specs`` for rows with ``labels``, which all of them must have components for."""
    wide = labels.shape[1] if len(labels.shape) == 2 else None
    for spec in specs:
        if wide is not None and wide != spec.components:
            raise UsageError(
                f"labels say which of {wide} components each row may be of, and n_components is "
                f"{spec.components}"
            )
        if not spec.prior.is_density:
            raise UsageError(
                "a variational fit has no component that a label could name: leave out labels, or "
                "fit a GaussianMixture"
            )
        if spec.init_params not in STARTS:
            raise UsageError(
                f"a fit to rows with labels begins at what these say: init_params="
                f"{spec.init_params!r} has no part in that; leave it out"
            )
    least = min(spec.components for spec in specs)
    return [
        replace(spec, observation=Labelled(spec.kernel, spec.observation, least)) for spec in specs
    ]
