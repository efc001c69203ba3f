"""Rows and where they lie: arrays, files, stores and Dask collections, as blocks of rows.

``opening.open_dataset`` takes any of them; ``forms`` knows the forms, ``sources`` chooses who reads
them, ``stored`` and ``direct`` read Zarr, ``urls`` opens addresses, ``patience`` waits for stores
that are away, and ``transient`` says which errors may pass.
"""
