"""`python -m moqt_trio.certificates`: see `moqt_trio.cli.certificates`."""

from __future__ import annotations

import sys

from ..cli.certificates import main

if __name__ == "__main__":
    sys.exit(main())
