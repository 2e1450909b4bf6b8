"""Images as disks of the host (``qemu-nbd -c``), in a kernel of its own that has an NBD client."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import uml

pytestmark = [
    pytest.mark.requires_tool("linux.uml"),
    pytest.mark.requires_tool("qemu-nbd"),
    pytest.mark.requires_tool("parted"),
    pytest.mark.requires_tool("mke2fs"),
    pytest.mark.skipif(not uml.may_boot(), reason="the kernel's root is the host's: root only"),
]


@pytest.mark.parametrize("name", ["disks", "large", "ends", "killed"])
def test_images_are_disks_of_the_host(tmp_path: Path, name: str) -> None:
    uml.run(tmp_path, "support.kernel_nbd", name)
