"""`python -m moqt_trio.certificates`: see `moqt_trio.cli.certificates`."""

from __future__ import annotations

import sys

from ..cli.certificates import main

sys.exit(main())
