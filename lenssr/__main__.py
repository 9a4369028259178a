"""``python -m lenssr`` is the command ``lenssr``."""

import sys

from lenssr.cli import main

if __name__ == "__main__":
    sys.exit(main())
