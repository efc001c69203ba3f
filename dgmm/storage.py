"""Model files: self-describing, checked, and unable to execute code.

A model file is a NumPy ``.npz`` archive, written uncompressed and read with ``allow_pickle=False``.
Without dgmm::

    >>> model = numpy.load("model.dgmm")            # doctest: +SKIP
    >>> model["weights"], model["means"], model["covariances"]
    >>> json.loads(str(model["header"]))            # what it is, how it was fitted

The header, one JSON text, holds the format's name and version, the covariance structure, a SHA-256
of the arrays, and the record of the fit.  Files of a newer version are refused, and so are files
whose size, shapes, checksum or numbers don't fit.
"""

import hashlib
import io
import json
import os
import zipfile
from typing import Any, Final
from uuid import uuid4

import numpy as np

from dgmm.covariance import STRUCTURES
from dgmm.errors import DataError, ModelFileError
from dgmm.mixture import Mixture
from dgmm.places import exists, is_local, place, refuse_existing

FORMAT: Final = "dgmm-model"
VERSION: Final = 1
ARRAYS: Final = ("weights", "means", "covariances", "precisions_cholesky")


def check_target(url: str, overwrite: bool) -> None:
    """Raise ``DataError`` unless a model may be put at ``url``, in place of no more than one."""
    if not overwrite:
        refuse_existing(url)
    elif exists(url):
        try:
            read_model(url)
        except ModelFileError as error:
            raise DataError(f"{url} is no model file; it is not overwritten") from error


def write_model(url: str, mixture: Mixture, record: dict[str, Any], overwrite: bool) -> None:
    """Write ``mixture`` and the ``record`` of its fit; the file appears whole or not at all."""
    check_target(url, overwrite)
    arrays = dict(zip(ARRAYS, _arrays(mixture), strict=True))
    header = {
        "format": FORMAT,
        "version": VERSION,
        "covariance_type": mixture.structure.name,
        "sha256": _digest(arrays),
        "record": record,
    }
    buffer = io.BytesIO()
    np.savez(buffer, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
    _write(url, buffer.getvalue())


def read_model(url: str) -> tuple[Mixture, dict[str, Any]]:
    """Read a mixture and the record of its fit; raises ``ModelFileError`` if that can't be done."""
    try:
        filesystem, path = place(url)
        with filesystem.open(path, "rb") as file:
            content = file.read()
    except Exception as error:  # each file system has errors of its own
        raise ModelFileError(f"{url} can't be read: {error}") from error
    try:
        return _parse(content)
    except ModelFileError as error:
        raise ModelFileError(f"{url} is no usable model file: {error}") from error


def _arrays(mixture: Mixture) -> tuple[np.ndarray, ...]:
    return mixture.weights, mixture.means, mixture.covariances, mixture.factors


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(np.ascontiguousarray(arrays[name], dtype="<f8").tobytes())
    return digest.hexdigest()


def _parse(content: bytes) -> tuple[Mixture, dict[str, Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if any(m.compress_type != zipfile.ZIP_STORED for m in members):
                raise ModelFileError("its members are compressed, which dgmm never does")
            if sum(m.file_size for m in members) > len(content):
                raise ModelFileError("its members claim to be larger than the file")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            header = json.loads(str(archive["header"]))
            arrays = {name: archive[name] for name in ARRAYS if name in archive}
    except ModelFileError:
        raise
    except Exception as error:  # a damaged archive fails in many ways, none of them ours to list
        raise ModelFileError(f"damaged or of another kind ({error})") from error
    _check_header(header)
    return _mixture(header, arrays), header["record"]


def _check_header(header: Any) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelFileError(f"its header does not say {FORMAT!r}")
    if not isinstance(header.get("version"), int) or header["version"] > VERSION:
        raise ModelFileError(
            f"it has version {header.get('version')}, this dgmm reads up to {VERSION}; upgrade dgmm"
        )
    if str(header.get("covariance_type")) not in STRUCTURES:
        raise ModelFileError(f"it has unknown covariances {header.get('covariance_type')!r}")
    if not isinstance(header.get("record"), dict):
        raise ModelFileError("its header has no record of the fit")


def _mixture(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Mixture:
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise ModelFileError(f"it lacks {', '.join(missing)}")
    structure = STRUCTURES[header["covariance_type"]]
    means = arrays["means"]
    if means.ndim != 2 or 0 in means.shape:
        raise ModelFileError(f"its means have shape {means.shape}")
    components, dims = means.shape
    shape = structure.shape(components, dims)
    for name, expected in zip(ARRAYS, ((components,), means.shape, shape, shape), strict=True):
        if arrays[name].shape != expected or arrays[name].dtype != np.float64:
            raise ModelFileError(
                f"its {name} are {arrays[name].dtype} of shape {arrays[name].shape}, "
                f"not float64 of shape {expected}"
            )
        if not np.isfinite(arrays[name]).all():
            raise ModelFileError(f"its {name} hold NaN or infinity")
    if _digest(arrays) != header.get("sha256"):
        raise ModelFileError("its checksum does not fit its numbers")
    weights = arrays["weights"]
    if weights.min() < 0 or abs(weights.sum() - 1) > 1e-9:
        raise ModelFileError("its weights are not a distribution")
    return Mixture(structure, *(arrays[name] for name in ARRAYS))


def _write(url: str, content: bytes) -> None:
    """Write a file that appears whole or not at all, and survives a power cut."""
    filesystem, path = place(url)
    try:
        if not is_local(filesystem):
            filesystem.pipe_file(path, content)  # one PUT: atomic on object stores
            return
        beside = f"{path}.{uuid4().hex}.partial"
        try:
            with open(beside, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            if os.path.exists(beside):
                os.remove(beside)
    except Exception as error:  # each file system has errors of its own
        raise DataError(f"{url} can't be written: {error}") from error
