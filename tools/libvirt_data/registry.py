"""Every suite; a module has a family of them in its ``SUITES``, and has a row here."""

from __future__ import annotations

from libvirt_data import arguments, capabilities, domain, host, moment, native, network, nwfilter, storage
from libvirt_data.case import Suite

FAMILIES = (
    domain.SUITES,
    arguments.SUITES,
    storage.SUITES,
    network.SUITES,
    nwfilter.SUITES,
    host.SUITES,
    moment.SUITES,
    capabilities.SUITES,
    native.SUITES,
)
SUITES: dict[str, Suite] = {suite.name: suite for family in FAMILIES for suite in family}
