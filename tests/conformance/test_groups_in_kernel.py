"""Control groups of machines, in a kernel of its own: of both versions, and where the host has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import told, uml

pytestmark = [
    pytest.mark.requires_tool("linux.uml"),
    pytest.mark.requires_tool("qemu-system-x86_64"),
    pytest.mark.skipif(not uml.may_boot(), reason="the kernel's root is the host's: root only"),
]


@pytest.mark.parametrize("name", ["unified", "legacy", "absent"])
def test_machines_are_in_groups(tmp_path: Path, name: str) -> None:
    told.tell(tmp_path)
    uml.run(tmp_path, "support.kernel_groups", name, 16 << 20)
