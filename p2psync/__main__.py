"""Runs the command line: `python -m p2psync`."""

import sys

from p2psync.cli.main import main

sys.exit(main())
