"""What commands check before any work is done."""

from __future__ import annotations

from dgmm.data import urls
from dgmm.errors import DataError, UsageError
from dgmm.io import models, storage


def check_file_target(output: str, overwrite: bool, *read: str | None) -> None:
    """Raise unless a file may and can be written, before any work is done for it.

    It may not replace what is ``read`` for it.
    """
    urls.refuse_directory(output)
    if not overwrite:
        urls.refuse_existing(output)
    for each in read:
        if each is not None and urls.is_same(output, each):
            raise DataError(f"{output} is what is read here: choose another name to write to")
    urls.check_writable(output)


def check_model_target(output: str, overwrite: bool, checkpoint: str | None = None) -> None:
    """Raise unless a model file may and can be written, before any work is done for it."""
    if checkpoint is not None and urls.is_same(output, checkpoint):
        raise UsageError(f"--checkpoint is a directory, --output a file: {output} can't be both")
    urls.refuse_directory(output)
    storage.check_target(output, models.MODEL, overwrite)
    urls.check_writable(output)
