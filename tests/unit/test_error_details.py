"""What an error says beside its code and its text, as libvirt's struct has it."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from hostel.errors import ErrorCode, VirtError
from hostel.errors.details import details
from hostel.wire.rpc.connection import pack_error, unpack_error


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        (ErrorCode.NO_DOMAIN, "Domain not found: x: y", ("Domain not found: %s", "x: y", None, -1, -1)),
        (ErrorCode.STORAGE_VOL_EXIST, "storage volume 'v' exists already",
         ("storage volume %s exists already", "'v'", None, -1, -1)),
        (ErrorCode.NO_NAME, "missing name information", ("missing name information", None, None, -1, -1)),
        (ErrorCode.DEVICE_MISSING, "device not found: x", ("device not found: %s", "x", None, -1, -1)),
        (ErrorCode.INTERNAL_ERROR, "no such beginning: x", ("%s", "no such beginning: x", None, -1, -1)),
        (ErrorCode.SYSTEM_ERROR, "cannot open '/x': No such file or directory",
         ("%s", "cannot open '/x': No such file or directory", None, errno.ENOENT, -1)),
        (ErrorCode.SYSTEM_ERROR, "x: Permission denied; '/y' is of root",
         ("%s", "x: Permission denied; '/y' is of root", None, errno.EACCES, -1)),
        (ErrorCode.SYSTEM_ERROR, "nothing of the host's", ("%s", "nothing of the host's", None, -1, -1)),
        (ErrorCode.INVALID_ARG, "unsupported flags (0x2) in function qemuDomainReset",
         ("qemuDomainReset", "flags", None, 0, 0)),
        (ErrorCode.INVALID_ARG, "string name in virDomainRename must not be empty",
         ("virDomainRename", "name", None, 0, 0)),
    ],
)  # fmt: skip
def test_what_code_and_text_tell(code: ErrorCode, message: str, said: Any) -> None:
    assert details(VirtError(code, message)) == said


def test_what_somebody_else_said_goes_on_as_it_came() -> None:
    said = ("a", None, "c", 7, 8)
    error = unpack_error(pack_error(VirtError(ErrorCode.INTERNAL_ERROR, "internal error: x", details=said)))
    assert error.details == said
    assert pack_error(error) == pack_error(VirtError(ErrorCode.INTERNAL_ERROR, "internal error: x", details=said))
