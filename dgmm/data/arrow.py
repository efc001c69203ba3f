"""Arrow files (Feather, version 2): a part is a record batch."""

from collections.abc import Sequence
from typing import Any

from dgmm.data.columns import chosen, once
from dgmm.data.table_source import Part, TableSource, check_installed, usual
from dgmm.data.urls import exists, is_local, place
from dgmm.errors import DataError, DgmmError, UsageError
from dgmm.model.lazy import Late

pyarrow = Late("pyarrow")


class ArrowSource(TableSource):
    """An Arrow file (Feather, version 2) on a file system that all processes share."""

    @classmethod
    def of(cls, url: str, wanted: Sequence[str] | None, vector: bool) -> "ArrowSource":
        """Open the file at ``url``: how many rows its batches have is read."""
        check_installed(url)
        filesystem, path = place(url)
        if not is_local(filesystem):
            raise UsageError(
                f"{url}: Arrow files are read from local paths; remote data as Parquet"
            )
        if not exists(url):
            raise DataError(f"{url} does not exist")
        try:
            with _arrow(path) as file:
                schema = file.schema
                usual_names = usual(schema)
                names = once(url, schema.names, chosen(schema.names, wanted, url, usual_names))
                rows = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
        except DgmmError:
            raise
        except Exception as error:
            raise DataError(f"{url} can't be read as an Arrow file: {error}") from error
        parts = [Part.of(path, index, count) for index, count in enumerate(rows)]
        return cls(url, parts, schema, names, vector)

    def _columns(self, part: Part, names: Sequence[str]) -> Any:
        with _arrow(part.path, names) as file:
            return pyarrow.Table.from_batches([file.get_batch(part.index)])

    def _forget(self) -> None:
        pass


def _arrow(path: str, names: Sequence[str] | None = None) -> Any:
    """The Arrow file at a local ``path``, of which some columns are read."""
    mapped = pyarrow.memory_map(path)
    if names is None:
        return pyarrow.ipc.open_file(mapped)
    whole = pyarrow.ipc.open_file(mapped).schema
    fields = [whole.get_field_index(name) for name in names]
    mapped.seek(0)
    return pyarrow.ipc.open_file(
        mapped, options=pyarrow.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
    )
