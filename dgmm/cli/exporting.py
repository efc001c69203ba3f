"""``dgmm export``: a model for what reads no model files."""

from __future__ import annotations

import os
from typing import Any

import click

from dgmm.cli.base import Command
from dgmm.cli.checks import check_file_target
from dgmm.cli.codes import EXIT_CODES
from dgmm.cli.options import (
    json_option,
    model_argument,
    output_option,
    overwrite_option,
)
from dgmm.cli.results import tell
from dgmm.errors import UsageError
from dgmm.model.lazy import Late

# Loaded when a command needs them, not for a usage error.
mixtures, storage = Late("dgmm.estimators.gaussian_mixture"), Late("dgmm.io.storage")


def _onnx(fitted: Any, dtype: str) -> bytes:
    graph: bytes = fitted.to_onnx(dtype=dtype).SerializeToString()
    return graph


def _json(fitted: Any, dtype: str) -> bytes:
    text: str = fitted.to_json(indent=1)
    return text.encode() + b"\n"


FORMATS = {".onnx": _onnx, ".json": _json}
"""By the end of a name: what a model becomes."""


@click.command(cls=Command, epilog=EXIT_CODES)
@model_argument
@output_option(
    "Where it goes: model.onnx, a graph that gives labels, probabilities and log-densities; "
    "or model.json, the parameters."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="What rows and outputs of a graph are.",
)
@overwrite_option
@json_option
def export(model: str, output: str, dtype: str, overwrite: bool, json: bool) -> None:
    """Write a model for other programs: an ONNX graph (with dgmm[onnx]), or its parameters as JSON.

    Example: dgmm export model.dgmm -o model.onnx
    """
    kind = os.path.splitext(output)[1]
    if kind not in FORMATS:
        raise UsageError(f"{output} must end in {' or '.join(FORMATS)}: that says what is written")
    check_file_target(output, overwrite, model)
    fitted = mixtures.load(model)
    content = FORMATS[kind](fitted, dtype)
    storage.put(output, memoryview(content))
    tell({"model": model, "output": output, "bytes": len(content)}, json)
