"""What the policy of the host says of machines: ``virtual_domain_context`` and ``virtual_image_context``."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

_ROOT: Final = Path("/etc/selinux")
_TYPE: Final = "targeted"  # where the host's configuration names none


class Policy(NamedTuple):
    """Contexts of machines and of their files.

    Attributes:
        process: of a machine's process.
        emulated: of one that has no KVM; None where the policy makes no difference.
        image: of what a machine writes.
        content: of what machines only read.
    """

    process: str
    emulated: str | None
    image: str
    content: str

    def base(self, kind: str) -> str:
        """That of a process, by the domain's type."""
        return self.emulated if kind == "qemu" and self.emulated is not None else self.process


def read_policy(root: Path = _ROOT) -> Policy:
    """Read those of the policy that the host's configuration names.

    Raises:
        OSError: a file is not there.
        ValueError: one says nothing.
    """
    folder = root / _kind(root) / "contexts"
    process, emulated = _lines(folder / "virtual_domain_context", "domain")
    image, content = _lines(folder / "virtual_image_context", "image")
    return Policy(process, emulated, image, content or image)


def _kind(root: Path) -> str:
    for line in (root / "config").read_text().splitlines():
        name, _, value = line.strip().partition("=")
        if name.strip() == "SELINUXTYPE":
            return value.strip()
    return _TYPE


def _lines(path: Path, kind: str) -> tuple[str, str | None]:
    """The first two lines of a file."""
    found = path.read_text().splitlines()
    if not found or not found[0]:
        raise ValueError(f"SELinux virtual {kind} context file '{path}' is empty")
    return found[0], found[1] if len(found) > 1 and found[1] else None
