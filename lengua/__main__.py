"""`python -m lengua` is `lengua`."""

import sys

from lengua.cli import main

sys.exit(main())
