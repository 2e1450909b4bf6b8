"""Every suite; a module has a family of them, and its ``SUITES`` are listed here."""

from __future__ import annotations

from libvirt_data import network, storage
from libvirt_data.case import Suite

SUITES: dict[str, Suite] = {suite.name: suite for suite in (*storage.SUITES, *network.SUITES)}
