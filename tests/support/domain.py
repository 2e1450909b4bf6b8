"""Documents of domains for tests: what our defaults make of one, beside Debian 12's QEMU."""

from __future__ import annotations

from pathlib import Path

from hostel.drivers.qemu.features import USUAL
from hostel.model.domain.defaults import complete
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.platform import Platform

GOLDEN = Path(__file__).parents[1] / "golden" / "domain"
CASES = sorted(path.stem for path in GOLDEN.glob("*.xml") if not path.name.endswith(".out.xml"))
QEMU = Platform(
    is_qemu=True,
    arch="x86_64",
    emulator="/usr/bin/qemu-system-x86_64",
    machine="pc",
    aliases={"pc": "pc-i440fx-7.2", "q35": "pc-q35-7.2"},
    cpu="qemu64",
    cpus={"isapc": "486"},
    features=USUAL,
)


def defined(xml: str, platform: Platform = QEMU) -> Domain:
    """A document as a driver stores it."""
    domain = Domain.parse(xml)
    forget_run(domain)
    complete(domain, platform)
    return domain
