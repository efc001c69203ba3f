"""The observation model of rows with labels, which holds that of rows without (labels.py)."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dgmm.kernels import labels
from dgmm.kernels.natural_parameters import Given, NaturalParameters
from dgmm.kernels.observation import Complete, Counted, Invalid, Missing, Observation
from dgmm.kernels.rounding import Away
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.mixture import Mixture
from dgmm.model.statistics import Stacked, Statistics


@dataclass(frozen=True)
class Labelled(Observation):
    """Of some rows it is known what components they may be of; ``within`` says the rest.

    Attributes
    ----------
    within : Observation
        What rows without labels are.
    components : int
        How many components there are: labels are below that.
    """

    within: Observation = field(default_factory=Complete)
    components: int = 1

    labelled = True

    @property
    def name(self) -> Missing:  # type: ignore[override]
        return self._own.name

    @property
    def holes(self) -> bool:  # type: ignore[override]
        return self._own.holes

    @property
    def refuses(self) -> bool:  # type: ignore[override]
        return self._own.refuses

    @property
    def all_count(self) -> bool:  # type: ignore[override]
        return self._own.all_count

    @property
    def deconvolves(self) -> bool:  # type: ignore[override]
        return self._own.deconvolves

    @property
    def centres(self) -> bool:
        return self._own.centres

    @property
    def error_bound(self) -> Callable[[Mixture, Away, float], Array]:
        return self._own.error_bound

    @property
    def plain(self) -> Observation:
        return self._own

    @property
    def _own(self) -> Observation:
        """``within``, with the kernel."""
        return replace(self.within, kernel=self.kernel)

    def nbytes(self, rows: int, row_bytes: int, n_features: int, components: int) -> int:
        own = self._own.nbytes(rows, row_bytes, n_features, components)
        return own + labels.nbytes(rows, row_bytes)

    def given(self, natural: NaturalParameters) -> NaturalParameters:
        return self._own.given(natural)

    def invalid(self, block: Block) -> Invalid:
        wrong = labels.first_invalid_label(block, self.components)
        if wrong is None:
            return self._own.invalid(block)
        return Invalid(wrong[0], mislabelled=wrong[1])

    def counted(self, block: Block) -> Counted:
        return self._own.counted(block)

    def allowed(self, block: Block) -> Array | None:
        if block.labels is None:
            return None
        weighted = block.labels if block.weights is None else block.labels[block.weights > 0]
        return labels.tally(weighted, self.components)

    def e_step(self, block: Block, given: Given) -> Stacked[Statistics]:
        if block.labels is None:
            return self._own.e_step(block, given)
        return labels.e_step(block, given, self._own.e_step)
