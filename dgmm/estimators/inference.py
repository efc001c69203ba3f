"""What estimators tell beyond labels: the faces of dgmm/inference, as one base of them all."""

from dgmm.estimators.changes import Changes
from dgmm.estimators.conditionals import Conditionals
from dgmm.estimators.grouping import Grouping
from dgmm.estimators.odd_rows import OddRows
from dgmm.estimators.overviews import Overviews
from dgmm.estimators.uncertainty import Uncertainty


class Inference(Changes, Conditionals, Grouping, OddRows, Overviews, Uncertainty):
    """The methods that ask a fitted mixture more than what each row is."""
