"""What can go wrong, and the exit code each error gives the command line.

::

    DgmmError                 exit code 1
      UsageError              2   what was asked for cannot be (also a ValueError)
        ClusterError          2   the address or the workers of a Dask cluster won't do
          LostError           2   no Dask cluster is there in time, or it was lost; try again
      DataError               3   what was found cannot be used (also a ValueError)
        BlockError            3   a block of rows could not be read or computed; says which
        ModelFileError        3   a model file is missing, damaged or from the future
        CheckpointError       3   a checkpoint is of another fit, damaged, or another driver's
      PlanError               3   the run would not fit in the memory it may use

    DgmmWarning
      DegenerateWarning           components lost weight or rank, or are as narrow as reg_covar
      ObjectiveFellWarning        an iteration lowered the objective by more than rounding explains

Where a store that can't be reached is the cause, or a cluster, waiting may help: ``passing``.
A fit that did not converge is no error: it is scikit-learn's ``ConvergenceWarning``.
"""

from typing import Final


class DgmmError(Exception):
    """Any error dgmm raises on purpose."""

    exit_code = 1


class UsageError(DgmmError, ValueError):
    """What was asked for cannot be."""

    exit_code = 2


class ClusterError(UsageError):
    """The Dask cluster asked for is none, or its workers don't have what is needed."""


class LostError(ClusterError):
    """No Dask cluster is there in time, or it was lost during a pass and did not come back."""


class DataError(DgmmError, ValueError):
    """What was found cannot be used."""

    exit_code = 3


class BlockError(DataError):
    """A block of rows could not be read or computed; the message names it, the cause is kept."""


class ModelFileError(DataError):
    """A model file is missing, damaged, or newer than this version of dgmm."""


class CheckpointError(DataError):
    """A checkpoint is of another fit, damaged, or being written by another driver."""


class PlanError(DgmmError):
    """The run would not fit in the memory it may use."""

    exit_code = 3


UNREACHED: Final = {"ConnectionError", "TimeoutError", "HTTPClientError", "ClientConnectionError"}
"""What errors of the network are called, by Python, botocore and aiohttp."""


def passing(error: BaseException) -> bool:
    """Whether the same may work later: a cluster or a store was not there, or did not answer."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, LostError) or kinds & UNREACHED:
        return True
    return error.__cause__ is not None and passing(error.__cause__)


class DgmmWarning(UserWarning):
    """Any warning dgmm gives on purpose."""


class DegenerateWarning(DgmmWarning):
    """Components lost their weight or their rank; the message names them."""


class ObjectiveFellWarning(DgmmWarning):
    """An iteration lowered the objective by more than rounding explains."""
