"""``python -m hostel``."""

from __future__ import annotations

from hostel.cli.main import run

if __name__ == "__main__":
    run()
