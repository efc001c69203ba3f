"""Rows and where they lie: arrays, files, stores and Dask collections, as blocks of rows.

``dataset.open_dataset`` takes any of them; ``forms`` knows the forms, ``stored`` and ``direct``
read Zarr, ``places`` opens addresses, ``patience`` waits for stores that are away.
"""
