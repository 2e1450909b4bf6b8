"""``python -m hostel``."""

from __future__ import annotations

import sys

from hostel.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["hostel", *sys.argv[1:]]))
