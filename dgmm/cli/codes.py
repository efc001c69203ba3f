"""What helps say at their ends: exit codes, and the environment."""

from typing import Final

EXIT_CODES: Final = """\b
Exit codes:
  0  done
  1  a crash: please report it
  2  wrong usage
  3  data that can't be used, or a fit too large for the memory: running it
     again won't help
  4  no cluster or store could be reached, or, with --checkpoint,
     interrupted: run the same command again; with --checkpoint it continues
  130, 143  without --checkpoint: interrupted by Ctrl-C or SIGTERM
"""

DRIFTED: Final = 5
"""The exit code where rows have drifted beyond what was allowed."""

ALARM: Final = (
    f"{EXIT_CODES}  {DRIFTED}  dgmm drift: the rows have drifted beyond --level and --effect\n"
)

ENVIRONMENT: Final = """\b
An option that is not given on the command line is read from the environment:
DGMM_FIT_MAX_ITER=50 is dgmm fit --max-iter 50, and DGMM_FIT_RESUME=false is
--no-resume. An empty variable counts as not set.
"""
