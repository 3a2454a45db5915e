"""``python -m hierlmm`` is the command line."""

import sys

from hierlmm.cli import main

if __name__ == "__main__":
    sys.exit(main())
