"""The driver's calls that look at memory and disks."""

from __future__ import annotations

import os

from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.peeking import PeekFlag, check_peek, check_size
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.block.chain import find_disk
from hostel.drivers.qemu.calls import Calls
from hostel.errors import ErrorCode, ErrorDomain


class PeekCalls(Calls):
    """Implements :class:`hostel.drivers.base.peeking.PeekDriver`."""

    def domain_memory_peek(self, domain: DomainRef, offset: int, size: int, flags: PeekFlag) -> bytes:
        """What QEMU says is there."""
        check_peek(size, flags, ErrorDomain.QEMU)
        with self._running(domain) as machine:
            command = "memsave" if flags == PeekFlag.VIRTUAL else "pmemsave"
            try:
                with machine.written_by_qemu("memory") as path:
                    machine.ask(command, val=offset, size=size, filename=str(path))
                    return path.read_bytes()
            except OSError as error:
                raise system_fault(error, "failed to read what QEMU wrote", ErrorDomain.QEMU) from error

    def domain_block_peek(self, domain: DomainRef, path: str, offset: int, size: int) -> bytes:
        """What is in the file or device of a raw disk."""
        check_size(size, ErrorDomain.QEMU)
        disk = find_disk(self._written(domain, Affect.CURRENT).current, path)
        format = disk.driver.type if disk.driver is not None else None
        if format not in (None, "raw"):
            what = f"peeking is only supported for disk with 'raw' format not '{format}'"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
        source = (disk.source.file or disk.source.dev) if disk.source is not None else None
        if source is None:
            what = "storage file reading is not supported for this storage type"
            raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                data = os.pread(descriptor, size, min(offset, 2**63 - 1 - size))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise system_fault(error, f"cannot read '{source}'", ErrorDomain.QEMU) from error
        if len(data) < size:
            what = f"'{path}' starting from {offset} has only {len(data)} bytes available"
            raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
        return data
