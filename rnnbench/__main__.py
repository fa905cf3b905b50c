"""``python -m rnnbench`` is the command line."""

import sys

from rnnbench.cli.main import main

sys.exit(main())
