"""What a fitted mixture tells beyond labels: which rows are odd, for one.

Each question is a function of a mixture and a sweep, or of a block of rows: so the room sees
nothing of files, threads or clusters, as the method does not.  Estimators and commands ask them.
"""
