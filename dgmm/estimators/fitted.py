"""What has a fitted model that can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which imports this
    from dgmm.estimators.gaussian_mixture import GaussianMixture


class Fitted(ABC):
    """What the methods of estimators that ask a fitted model begin with."""

    @property
    @abstractmethod
    def _fitted(self) -> GaussianMixture:
        """The fitted model that is asked; raises ``NotFittedError`` if there is none."""
