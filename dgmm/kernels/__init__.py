"""One block of rows: the E-step and the sums over it, in NumPy and compiled; outputs of each row.

``sweep`` is the seam to whoever has the rows: apply a function to every block, and add up.
"""
