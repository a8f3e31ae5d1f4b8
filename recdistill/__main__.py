"""`python -m recdistill` is the console script `recdistill`."""

import sys

from recdistill.cli import main

if __name__ == "__main__":
    sys.exit(main())
