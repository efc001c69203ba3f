"""Which files a table has: those in a directory, or those that a pattern means."""

from collections.abc import Iterable
from typing import Final

from dgmm.data.patience import patience
from dgmm.data.urls import above, is_pattern, place
from dgmm.errors import DataError, DgmmError

HIDDEN: Final = ("_", ".")
"""What the names begin with of files that are no part of a table."""


def files(url: str, endings: Iterable[str]) -> list[str]:
    """The paths of the files at ``url``: itself, those in a directory, or those of a pattern.

    A pattern may be of directories, too, whose names end as those of files.
    """
    filesystem, path = place(url)
    endings = tuple(endings)

    def ask() -> list[str]:
        filesystem.invalidate_cache()
        root = path
        if filesystem.isdir(path):
            paths = filesystem.find(path)
        elif filesystem.exists(path):  # whatever is in its name
            return [path]
        elif is_pattern(path):
            found = filesystem.glob(path, detail=True)
            matches = [each for each in found if each.lower().endswith(endings)]
            paths = set(matches)
            for each in matches:
                if found[each]["type"] == "directory":
                    paths.remove(each)
                    paths.update(filesystem.find(each))
            root = above(path)
        else:
            raise DataError(f"{url} does not exist")
        return [each for each in sorted(paths) if _is_part(each, root, endings)]

    try:
        paths: list[str] = patience()(ask)
    except DgmmError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise DataError(f"{url} can't be reached: {error}") from error
    if not paths:
        raise DataError(f"{url} has no file whose name ends in {', '.join(endings)}")
    return paths


def _is_part(path: str, root: str, endings: tuple[str, ...]) -> bool:
    """Whether a file below ``root`` is a part of the table: no note that a writer left."""
    below = path.removeprefix(root.rstrip("/") + "/").split("/")
    return path.lower().endswith(endings) and not any(each.startswith(HIDDEN) for each in below)
