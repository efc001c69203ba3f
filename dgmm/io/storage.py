"""Files of ours: self-describing, checked, whole or not at all, and unable to execute code.

A file is a NumPy ``.npz`` archive, written uncompressed and read with ``allow_pickle=False``: some
arrays, and a header, one JSON text that holds the format's name and version, a SHA-256 of all else,
and a record.  Without dgmm::

    >>> model = numpy.load("model.dgmm")            # doctest: +SKIP
    >>> model["weights"], model["means"], model["covariances"]
    >>> json.loads(str(model["header"]))            # what it is, how it was fitted

Files of a newer version are refused, and so are files whose size, shapes, checksum or numbers don't
fit.
"""

import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from dgmm.data.patience import patience
from dgmm.data.transient import is_transient
from dgmm.data.urls import exists, is_local, place, refuse_existing
from dgmm.errors import DataError, ModelFileError

VERSION: Final = 1
"""Of every format here."""


Arrays = dict[str, NDArray[Any]]


def check_target(url: str, format: str, overwrite: bool) -> None:
    """Raise ``DataError`` unless a file may be put at ``url``, in place of none but its like."""
    if not overwrite:
        refuse_existing(url)
    elif exists(url):
        try:
            read(url, format)
        except ModelFileError as error:
            raise DataError(f"{url} is no {_kind(format)} file; it is not overwritten") from error


def write(
    url: str, format: str, arrays: Arrays, header: dict[str, Any], overwrite: bool = False
) -> None:
    """Write a file of a ``format``; it appears whole or not at all."""
    check_target(url, format, overwrite)
    _put(url, _packed(format, arrays, header), os.replace, "overwrite")


def create(url: str, format: str, arrays: Arrays, header: dict[str, Any]) -> None:
    """Write a file that must not be there; raises ``FileExistsError`` if it is, even just now.

    Its directory is made if there is none.  What this same call has written is not taken for
    another's, where an answer was lost.
    """
    filesystem, path = place(url)
    try:
        if is_local(filesystem):
            os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError as error:
        raise DataError(f"{url} can't be written: {error}") from error
    header = {**header, "written": uuid4().hex}
    try:
        _put(url, _packed(format, arrays, header), os.link, "create")
    except FileExistsError:
        if not _holds(url, format, header["written"]):
            raise


def put(url: str, content: memoryview) -> None:
    """Write a file of another format; it appears whole or not at all, in place of any other."""
    _put(url, content, os.replace, "overwrite")


def _holds(url: str, format: str, written: str) -> bool:
    """Whether the file at ``url`` is the one that says ``written``."""
    try:
        return bool(read(url, format)[1].get("written") == written)
    except ModelFileError as error:
        if is_transient(error):
            raise
        return False


def _packed(format: str, arrays: Arrays, header: dict[str, Any]) -> memoryview:
    header = {"format": format, "version": VERSION, **header}
    header["sha256"] = digest(arrays, header)
    buffer = io.BytesIO()
    np.savez(buffer, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
    return buffer.getbuffer()


def read(url: str, format: str) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the header of a file; raises ``ModelFileError`` if it is none, or damaged."""

    def ask() -> bytes:
        filesystem, path = place(url)
        filesystem.invalidate_cache(path)  # it may have been listed before this file was there
        with filesystem.open(path, "rb") as opened:
            file = _Asked(opened)
            size = file.seek(0, io.SEEK_END)
            _check_members(file, size)  # before anything large is read
            file.seek(0)
            return bytes(file.read())

    try:
        content = patience()(ask)
    except ModelFileError as error:
        raise ModelFileError(f"{url} is no usable {_kind(format)} file: {error}") from error
    except Exception as error:  # each file system has errors of its own
        gone = isinstance(error, FileNotFoundError) and not is_transient(error)
        said = "does not exist" if gone else f"can't be read: {error}"
        raise ModelFileError(f"{url} {said}") from error
    try:
        return _parse(content, format)
    except ModelFileError as error:
        raise ModelFileError(f"{url} is no usable {_kind(format)} file: {error}") from error


class _Asked:
    """An open file, each part of which is asked for again while its store is away."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return patience()(lambda: bytes(self._file.read(size)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def expect(arrays: Arrays, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise ``ModelFileError`` unless these ``arrays`` are float64, finite, of these ``shapes``."""
    for name, expected in shapes.items():
        array = arrays.get(name)
        if array is None:
            raise ModelFileError(f"its {name} are missing")
        if array.shape != expected or array.dtype != np.float64:
            raise ModelFileError(
                f"its {name} are {array.dtype} of shape {array.shape}, "
                f"not float64 of shape {expected}"
            )
        if not np.isfinite(array).all():
            raise ModelFileError(f"its {name} hold NaN or infinity")


def matrix(arrays: Arrays, name: str) -> NDArray[Any]:
    """The array of this ``name``; raises ``ModelFileError`` unless it is a matrix."""
    array = arrays.get(name)
    if array is None or array.ndim != 2 or 0 in array.shape:
        have = "missing" if array is None else f"of shape {array.shape}"
        raise ModelFileError(f"its {name} are {have}")
    return array


def _kind(format: str) -> str:
    """What people call a format."""
    return format.removeprefix("dgmm-")


def digest(arrays: Arrays, header: dict[str, Any]) -> str:
    """The SHA-256 of a file's content."""
    signed = {name: value for name, value in header.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(signed, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _check_members(file: Any, size: int) -> None:
    """Raise ``ModelFileError`` unless a file is an archive that is no larger than it seems."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except Exception as error:  # a damaged archive fails in many ways, none of them ours to list
        if is_transient(error):
            raise
        raise ModelFileError(f"damaged or of another kind ({error})") from error
    if any(m.compress_type != zipfile.ZIP_STORED for m in members):
        raise ModelFileError("its members are compressed, which dgmm never does")
    if sum(m.file_size for m in members) > size:
        raise ModelFileError("its members claim to be larger than the file")


def _parse(content: bytes, format: str) -> tuple[Arrays, dict[str, Any]]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if not all(isinstance(each, np.ndarray) for each in arrays.values()):
            raise ValueError("a member is no array")
        header = json.loads(str(arrays.pop("header")))
        whole = isinstance(header, dict) and digest(arrays, header) == header.get("sha256")
    except Exception as error:
        raise ModelFileError(f"damaged or of another kind ({error})") from error
    if not isinstance(header, dict) or header.get("format") != format:
        raise ModelFileError(f"its header does not say {format!r}")
    if not isinstance(header.get("version"), int) or header["version"] > VERSION:
        raise ModelFileError(
            f"it has version {header.get('version')}, this dgmm reads up to {VERSION}; upgrade dgmm"
        )
    if not whole:
        raise ModelFileError("its checksum does not fit its content")
    return arrays, header


def _put(url: str, content: memoryview, publish: Callable[[str, str], None], mode: str) -> None:
    """Write a file that appears whole or not at all, and survives a power cut.

    ``publish`` gives the written file its name, where it is local; ``mode`` is an object store's.
    """
    filesystem, path = place(url)

    def ask() -> None:
        if is_local(filesystem):
            _put_here(os.path.realpath(path), content, publish)
        else:  # a PUT, or a large one in parts: either is atomic on object stores
            filesystem.pipe_file(path, bytes(content), mode=mode)

    try:
        patience()(ask)
    except FileExistsError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise DataError(f"{url} can't be written: {error}") from error


def _put_here(path: str, content: memoryview, publish: Callable[[str, str], None]) -> None:
    beside = f"{path}.{uuid4().hex}.partial"
    try:
        with open(beside, "xb") as file:
            if os.path.exists(path):
                os.chmod(beside, stat.S_IMODE(os.stat(path).st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(beside, path)
        _sync_directory(os.path.dirname(path))
    finally:
        with suppress(OSError):  # what it failed for is worth telling
            os.remove(beside)


def _sync_directory(path: str) -> None:
    """Have the names in a directory survive a power cut, too."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
