"""`python -m sidfast` is the command line."""

from __future__ import annotations

import sys

from sidfast.cli import main

sys.exit(main())
