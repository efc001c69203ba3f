"""Which kernel: the compiled one, or NumPy's.

The compiled one is built with the package where a C compiler is at hand.  ``DGMM_KERNEL=numpy`` or
``native`` in the environment forces a choice.  A cluster's workers must all have the kernel that
the fit chose.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from dgmm.errors import UsageError
from dgmm.kernels import compiled as built
from dgmm.kernels import (
    kernel,
    missing,
    native,
    native_missing,
    native_noisy,
    native_outputs,
    noisy,
    sparse,
)
from dgmm.kernels.missing import IncompleteStep
from dgmm.kernels.natural_parameters import EStep
from dgmm.kernels.rounding import Away, rounding_error_bound
from dgmm.kernels.sweep import Block
from dgmm.model.arrays import Array
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture


@dataclass(frozen=True)
class Kernel:
    """A way to compute the E-step.

    Attributes
    ----------
    e_step : callable
        What is swept.
    incomplete : callable
        The same of the rows of some patterns of holes; see missing.py.
    centres : bool
        Whether it wants all components centred.
    noisy : callable
        The same of rows that all have noise.
    error_bound : callable
        From a mixture, how each component's rows lie about its mean, and the unit round-off: a
        bound (K,) on the error of the log-densities of these rows, in the mean over them.
    row_outputs : callable
        From the name of an output, complete rows, a frame and a mixture in it, to that output of
        each row; None where NumPy is to say it.
    divides : bool
        Whether a block of dense rows may be taken in parts, at little cost.
    """

    e_step: EStep
    incomplete: IncompleteStep
    centres: bool
    noisy: EStep
    error_bound: Callable[[Mixture, Away, float], Array]
    row_outputs: Callable[[str, Block, Frame, Mixture], NDArray[Any] | None]
    divides: bool = True


KERNELS: Final = {
    "numpy": Kernel(
        *(kernel.e_step, missing.incomplete, False, noisy.noisy, rounding_error_bound),
        lambda kind, block, frame, inside: None,
    ),
    "native": Kernel(
        *(
            native.e_step,
            native_missing.incomplete,
            True,
            native_noisy.with_noise,
            native.centred_error,
        ),
        native_outputs.row_outputs,
    ),
}

SPARSE: Final = "sparse"
"""The name of the kernel of sparse rows, which nobody chooses: rows do."""

WAYS: Final = {
    **KERNELS,
    SPARSE: Kernel(
        *(sparse.e_step, missing.incomplete, False, noisy.noisy, sparse.error_bound),
        sparse.row_outputs,
        divides=False,
    ),
}
"""All kernels, by their names."""


def preferred() -> str:
    """What ``DGMM_KERNEL`` asks for, else the compiled kernel if there is one."""
    return built.preferred(native.compiled)


def without(package: Path = Path(__file__).parents[1]) -> str:
    """Why the dgmm in the folder ``package`` has no compiled kernel, and what to do about it.

    A clone holds sources; Python started there prefers them to a dgmm that is installed.
    """
    if native.failure is not None and not isinstance(native.failure, ModuleNotFoundError):
        return f"dgmm's compiled kernel can't be loaded ({native.failure}): install dgmm again"
    if not (package.parent / "pyproject.toml").is_file():
        return "dgmm was installed without a C compiler: install a compiler, and dgmm again"
    clone = package.parent
    build = f"pip install -e {clone} compiles it there, with a C compiler"
    imported = f"Python took dgmm from the clone {clone}, whose kernel is not compiled"
    folders = (Path(str(each.locate_file("dgmm"))) for each in distributions(name="dgmm"))
    for folder in folders:
        if any(folder.glob("kernels/_native.*.so")) and not folder.samefile(package):
            return (
                f"{imported}, and not the dgmm installed in {folder.parent}: start Python in "
                f"another folder, or {build}"
            )
    return f"{imported}: {build}"


def chosen() -> str:
    """The kernel to use; raises ``UsageError`` if there is no such kernel.

    Warns if it is NumPy's for want of another, and not because ``DGMM_KERNEL`` says so.
    """
    name = preferred()
    if name not in KERNELS:
        raise UsageError(f"DGMM_KERNEL must be one of {', '.join(KERNELS)}, not {name!r}")
    if name == "native" and native.compiled is None:
        raise UsageError(f"DGMM_KERNEL=native, but {without()}")
    if name == "numpy" and not os.environ.get("DGMM_KERNEL"):
        warnings.warn(
            f"the NumPy kernel is used, which takes up to four times as long. {without()}; "
            "DGMM_KERNEL=numpy says that it is meant so",
            stacklevel=2,
        )
    return name


def described(name: str) -> str:
    """A kernel's name, with the instructions it uses, or that there is no such kernel."""
    return built.described(name, native.compiled, native.VARIANT)
