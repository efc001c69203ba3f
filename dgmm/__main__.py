"""``python -m dgmm`` is ``dgmm``."""

import sys

from dgmm.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
