"""The priors that users can name."""

from typing import Any, Final, Literal

from dgmm.em.conjugate_prior import ConjugatePrior
from dgmm.em.prior_spec import NoPrior, PriorSpec
from dgmm.em.variational_prior import VariationalPrior

PriorName = Literal["none", "conjugate", "variational"]
"""The names of ``PRIORS``."""

PRIORS: Final[dict[str, type[NoPrior] | type[ConjugatePrior] | type[VariationalPrior]]] = {
    each.name: each for each in (NoPrior, ConjugatePrior, VariationalPrior)
}
"""What ``prior`` may be, by name."""


def parse_prior(record: dict[str, Any]) -> PriorSpec:
    """What gave this ``record``; raises ``ValueError`` or ``TypeError`` if nothing did."""
    fields = dict(record)
    name = fields.pop("name", None)
    if name not in PRIORS:
        raise ValueError(f"there is no prior {name!r:.40}")
    return PRIORS[name](**fields)
