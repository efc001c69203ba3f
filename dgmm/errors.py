"""What can go wrong, and the exit code each error gives the command line.

::

    DgmmError                 exit code 1
      UsageError              2   what was asked for cannot be (also a ValueError)
        ClusterError          2   the address or the workers of a Dask cluster won't do
          ClusterLostError    4   no Dask cluster is there in time, or it was lost; try again
      DataError               3   what was found cannot be used (also a ValueError)
        BlockError            3   a block of rows could not be read or computed; says which
        ModelFileError        3   a model file is missing, damaged or from the future
        CheckpointError       3   a checkpoint is of another fit, damaged, or another driver's
      PlanError               3   the run would not fit in the memory it may use

    DgmmWarning
      DegenerateWarning           components are empty, singular, or as narrow as reg_covar
      MissingNoiseWarning         rows are judged without the noise that a model was fitted with
      ObjectiveFellWarning        an iteration lowered the objective by more than rounding explains

Where a store that can't be reached is the cause, or a cluster, waiting may help, and the exit code
is 4: ``data/transient.py`` tells which errors these are.  A fit that did not converge is no error:
it is scikit-learn's ``ConvergenceWarning``.
"""


class DgmmError(Exception):
    """Any error dgmm raises on purpose."""

    exit_code = 1

    is_transient: bool | None = None
    """Whether the same may work later, where whoever raised it knew; its causes may be lost."""


class UsageError(DgmmError, ValueError):
    """What was asked for cannot be."""

    exit_code = 2


class ClusterError(UsageError):
    """The Dask cluster asked for is none, or its workers don't have what is needed."""


class ClusterLostError(ClusterError):
    """No Dask cluster is there in time, or it was lost during a pass and did not come back."""

    exit_code = 4
    is_transient = True


class DataError(DgmmError, ValueError):
    """What was found cannot be used."""

    exit_code = 3


class BlockError(DataError):
    """A block of rows could not be read or computed; the message names it, the cause is kept.

    Attributes
    ----------
    block : int, optional
        The block's number, where it is one that another worker may be able to read or write.
    worker : str, optional
        The address of the worker that could not.
    """

    block: int | None = None
    worker: str | None = None


class ModelFileError(DataError):
    """A model file is missing, damaged, or newer than this version of dgmm."""


class CheckpointError(DataError):
    """A checkpoint is of another fit, damaged, or being written by another driver."""


class PlanError(DgmmError):
    """The run would not fit in the memory it may use."""

    exit_code = 3


class DgmmWarning(UserWarning):
    """Any warning dgmm gives on purpose."""


class DegenerateWarning(DgmmWarning):
    """Components are empty, singular, or as narrow as reg_covar; the message names them."""


class MissingNoiseWarning(DgmmWarning):
    """A model was fitted to rows with known errors, and rows are judged as if they had none."""


class ObjectiveFellWarning(DgmmWarning):
    """An iteration lowered the objective by more than rounding explains."""
