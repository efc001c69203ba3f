"""The method: from the first pass over the rows to a fitted mixture, and to the best of several.

``first_pass`` (the first pass), ``model`` (what is fitted, and the M-step), ``evaluate`` (the
E-step), ``solver`` and its kinds (ways to an optimum), ``starts`` and what finds them on samples,
``strategies`` (solvers and starts that have a name), ``fit`` (the loop) and ``selection`` (what is
chosen in it).  All of it sees one callable, the sweep, and nothing of files, threads or clusters.
"""
