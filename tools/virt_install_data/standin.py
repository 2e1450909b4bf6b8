"""The hypervisors that virt-manager's tests pretend to talk to: libvirt's invented one, with documents of others.

``__virtinst_test__test:///FILE,fakeuri=URI,caps=FILE,domcaps=FILE``: the machines, pools and networks of FILE, which a
libvirtd of our own reads, and of another hypervisor its URI and what it says that it can do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hostel
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.objects import Connection
from support import libvirtd

_PREFIX = "__virtinst_test__"


class _Hypervisor:
    """A driver that also says what its machines can have, out of a file."""

    def __init__(self, driver: Any, told: str | None) -> None:
        self._driver = driver
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def connect_get_domain_capabilities(self, *kind: Any) -> str:
        if self._told is None:
            raise VirtError(ErrorCode.NO_SUPPORT, "this driver does not tell")
        return self._told

    def domain_attach_device_flags(self, *call: Any) -> None:
        # libvirt's test driver refuses it, which virt-manager's tests of virt-xml ignore where they say so.
        if "VIRTXML_TESTSUITE_UPDATE_IGNORE_FAIL" not in os.environ:
            self._driver.domain_attach_device_flags(*call)


class StandIn(Connection):
    """A connection of libvirt's test driver that passes for another."""

    def __init__(self, real: Connection, uri: str, capabilities: str | None, told: str | None) -> None:
        super().__init__(real._drivers)
        self.uri = uri
        self._capabilities = capabilities
        self.hypervisor = _Hypervisor(self.hypervisor, told)

    def capabilities(self) -> str:
        """What it says that it can do."""
        return super().capabilities() if self._capabilities is None else self._capabilities


class Hypervisors:
    """The libvirtd, with the documents of the tests where it can read them."""

    def __init__(self, socket: str, folder: Path) -> None:
        self._socket = socket
        self._folder = folder

    @contextmanager
    def connection(self, uri: str, home: Path) -> Iterator[Connection]:
        """Open what a URI of the tests stands for."""
        plain, _, rest = uri.removeprefix(_PREFIX).partition(",")
        options = dict(option.partition("=")[::2] for option in rest.split(",") if option)
        path = plain.removeprefix("test://")
        if path != "/default":
            path = str(self._folder / Path(path).name)
        real_uri = f"test+unix://{path}?socket={self._socket}"
        capabilities = Path(options["caps"]).read_text() if "caps" in options else None
        told = Path(options["domcaps"]).read_text() if "domcaps" in options else None
        with hostel.open(real_uri, Directories.under(home)) as real:
            yield StandIn(real, options.get("fakeuri", plain), capabilities, told)


@contextmanager
def hypervisors(tree: Path) -> Iterator[Hypervisors]:
    """Start the libvirtd."""
    with libvirtd.running() as served:
        socket = served.uri.partition("socket=")[2]
        folder = Path(socket).parents[2] / "testdriver"
        shutil.copytree(tree / "tests" / "data" / "testdriver", folder)
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)
        yield Hypervisors(socket, folder)
