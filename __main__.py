"""`python -m ohmfold`: the command line."""

from __future__ import annotations

import sys

from ohmfold.toolchain.cli import main

if __name__ == "__main__":
    sys.exit(main())
