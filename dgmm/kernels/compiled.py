"""The compiled part of the kernels, where it was built, and what kernels are called.

It imports nothing of the kernels: ``dgmm --version`` tells which there is, and does no more.
"""

import importlib
import os
from typing import Any, Final

NAMES: Final = ("numpy", "native", "sparse")
"""Of all kernels; nobody chooses that of sparse rows."""

module: Any
failure: ImportError | None = None
"""Why the compiled part was not imported."""
try:
    module = importlib.import_module("dgmm.kernels._native")
except ImportError as error:  # no compiler was at hand; choice.without() knows more
    module, failure = None, error


def preferred(compiled: Any = module) -> str:
    """What ``DGMM_KERNEL`` asks for, else the ``compiled`` kernel if there is one."""
    return os.environ.get("DGMM_KERNEL") or ("numpy" if compiled is None else "native")


def described(name: str, compiled: Any = module, variant: int = 0) -> str:
    """A kernel's name, with the instructions it uses, or that there is no such kernel."""
    if name not in NAMES or (name == "native" and compiled is None):
        return f"no {name}"
    return f"native ({compiled.variants()[variant]})" if name == "native" else name
