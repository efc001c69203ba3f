"""What commands check before any work is done."""

from __future__ import annotations

from dgmm.data import urls
from dgmm.io import models, storage


def check_file_target(output: str, overwrite: bool) -> None:
    """Raise unless a file may and can be written, before any work is done for it."""
    urls.refuse_directory(output)
    if not overwrite:
        urls.refuse_existing(output)
    urls.check_writable(output)


def check_model_target(output: str, overwrite: bool) -> None:
    """Raise unless a model file may and can be written, before any work is done for it."""
    urls.refuse_directory(output)
    storage.check_target(output, models.MODEL, overwrite)
    urls.check_writable(output)
