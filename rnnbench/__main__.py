"""``python -m rnnbench`` is the command line."""

import sys

from rnnbench.cli import main

sys.exit(main())
