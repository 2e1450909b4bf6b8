"""UEFI's own shell on a guest's serial port, by which a test sets and reads variables."""

from __future__ import annotations

import re
import time
from typing import Final

from hostel.drivers.base import DomainRef, HypervisorDriver

_GUID: Final = "5b2c1f44-1d0e-4f3a-9d54-0a8f3e1c7a11"
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;=?]*[A-Za-z]")
_PROMPT: Final = "Shell> "


class UefiShell:
    """A running guest's shell."""

    def __init__(self, driver: HypervisorDriver, domain: DomainRef) -> None:
        self._console = driver.domain_open_console(domain)

    @classmethod
    def boot(cls, driver: HypervisorDriver, domain: DomainRef, *, timeout: float = 90) -> UefiShell:
        """Wait until a guest that was just started has its shell."""
        shell = cls(driver, domain)
        shell._wait("startup.nsh", timeout)
        shell._console.write(b"\x1b")
        shell._wait(_PROMPT, timeout)
        return shell

    def close(self) -> None:
        """Leave the console."""
        self._console.close()

    def run(self, command: str) -> str:
        """What a command prints."""
        self._console.write(command.encode() + b"\r")
        echo = self._wait(command, 30)
        return self._wait(_PROMPT, 30, echo.partition(command)[2])

    def set_variable(self, value: int) -> None:
        """Keep a byte in a variable that outlives the machine's run."""
        said = self.run(f"setvar Hostel -guid {_GUID} -bs -rt -nv ={value:02x}")
        assert "Unable" not in said, said

    def variable(self) -> int | None:
        """The byte; None where nobody has kept one."""
        said = self.run(f"setvar Hostel -guid {_GUID}")
        found = re.search(r"0001 Bytes\s+([0-9A-F]{2})", said)
        assert found is not None or "Unable to get" in said, said
        return None if found is None else int(found[1], 16)

    def _wait(self, text: str, timeout: float, said: str = "") -> str:
        deadline = time.monotonic() + timeout
        while text not in said:
            assert time.monotonic() < deadline, f"no '{text}' within {timeout} s: {said!r}"
            said = _ESCAPES.sub("", said + (self._console.read(4096, 0.5) or b"").decode("utf-8", "replace"))
        return said
