"""Rows and where they lie: arrays, files, stores and Dask collections, as blocks of rows.

``opening.open_dataset`` takes any of them; ``kinds`` and ``forms`` know the forms, ``sources``
chooses who reads them, ``zarr_stores`` opens Zarr, which ``stored`` and ``direct`` read, ``urls``
opens addresses, ``patience`` waits for stores that are away, and ``transient`` says which errors
may pass.
"""
