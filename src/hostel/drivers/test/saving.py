"""Saving the test driver's domains: their documents in files, as libvirt's test driver writes them."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from hostel.drivers.adapters import check_flags
from hostel.drivers.base import DomainRef, DomainState, DomainXmlFlag, RunningReason, ShutoffReason, StateInfo
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.saving import SaveFlag
from hostel.drivers.base.storage import Progress
from hostel.drivers.events import Defined, Lifecycle, Started, Stopped, Undefined
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.test.document import DomainDefinition, parse_domain
from hostel.drivers.test.host import Host, TestDomain
from hostel.drivers.test.impact import change_documents
from hostel.drivers.test.lifecycle import ref_of, refused, running, stop, tell
from hostel.drivers.together import check_together
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain

_MAGIC: Final = b"TestGuestMagic\0"
_LENGTH: Final = struct.Struct("=i")
_MOST: Final = 8192  # bytes of a document


class SaveCalls:
    """Implements :class:`hostel.drivers.base.saving.SaveDriver`, and renaming."""

    _host: Host

    def domain_save_flags(
        self,
        domain: DomainRef,
        to: str,
        xml: str | None = None,
        flags: SaveFlag = SaveFlag.NONE,
        progress: Progress | None = None,
    ) -> None:
        """Write the document to a file, and end the domain."""
        check_together(flags)
        check_flags(flags, 0, "testDomainSaveFlags")
        _refuse_document(xml)
        with self._host.lock:
            found = running(self._host, domain)
            _write(to, found.current, found.definition.name)
            stop(self._host, found, ShutoffReason.SAVED, Stopped.SAVED)

    def domain_restore_flags(self, source: str, xml: str | None = None, flags: SaveFlag = SaveFlag.NONE) -> DomainRef:
        """Start a domain from a file, which stays."""
        check_together(flags)
        check_flags(flags, 0, "testDomainRestoreFlags")
        _refuse_document(xml)
        definition = _read(source)
        with self._host.lock:
            found = self._host.same(definition)
            if found is not None and found.live is not None:
                what = f"domain '{definition.name}' is already active"
                raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.DOMAIN)
            if found is None:
                found = self._host.domains[definition.name] = TestDomain(definition, persistent=False)
            self._host.boot(found)
            found.live = definition
            found.state = StateInfo(DomainState.RUNNING, RunningReason.RESTORED)
            tell(self._host, found, Lifecycle.STARTED, Started.RESTORED)
            return ref_of(found)

    def domain_save_image_get_xml_desc(self, file: str, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """The document in a file."""
        return _read(file).format()

    def domain_save_image_define_xml(self, file: str, xml: str, flags: SaveFlag = SaveFlag.NONE) -> None:
        """Change the document in a file."""
        check_together(flags)
        check_flags(flags, SaveFlag.RUNNING | SaveFlag.PAUSED, "testDomainSaveImageDefineXML")
        _read(file)
        definition = parse_domain(xml)
        _write(file, definition, definition.name)

    def domain_managed_save(
        self, domain: DomainRef, flags: SaveFlag = SaveFlag.NONE, progress: Progress | None = None
    ) -> None:
        """End the domain, and remember that the next start goes on from here."""
        check_together(flags)
        allowed = SaveFlag.BYPASS_CACHE | SaveFlag.RUNNING | SaveFlag.PAUSED
        check_flags(flags, allowed, "testDomainManagedSave")
        with self._host.lock:
            found = running(self._host, domain)
            if not found.persistent:
                raise refused(ErrorCode.OPERATION_INVALID, "cannot do managed save for transient domain")
            stop(self._host, found, ShutoffReason.SAVED, Stopped.SAVED)
            found.saved = True

    def domain_has_managed_save_image(self, domain: DomainRef) -> bool:
        """Whether it was saved so."""
        with self._host.lock:
            return self._host.domain(domain).saved

    def domain_managed_save_remove(self, domain: DomainRef) -> None:
        """The next start is a boot."""
        with self._host.lock:
            self._host.domain(domain).saved = False

    def domain_managed_save_get_xml_desc(self, domain: DomainRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """Refused: nothing is written, in libvirt's neither."""
        raise refused(ErrorCode.NO_SUPPORT, "virDomainManagedSaveGetXMLDesc")

    def domain_managed_save_define_xml(self, domain: DomainRef, xml: str, flags: SaveFlag = SaveFlag.NONE) -> None:
        """Refused: nothing is written, in libvirt's neither."""
        raise refused(ErrorCode.NO_SUPPORT, "virDomainManagedSaveDefineXML")

    def domain_rename(self, domain: DomainRef, new_name: str) -> None:
        """Give a domain that is off another name; its snapshots go with it."""
        with self._host.lock:
            found = self._host.domain(domain)
            if found.live is not None:
                raise refused(ErrorCode.OPERATION_INVALID, "cannot rename active domain")
            if not found.persistent:
                raise refused(ErrorCode.OPERATION_INVALID, "cannot rename a transient domain")
            if "/" in new_name:
                raise refused(ErrorCode.XML_ERROR, f"name {new_name} cannot contain '/'")
            if new_name == domain.name:
                raise refused(ErrorCode.OPERATION_INVALID, "Can't rename domain to itself")
            if new_name in self._host.domains:
                raise refused(ErrorCode.OPERATION_INVALID, f"domain with name '{new_name}' already exists")

            def change(document: Domain) -> None:
                document.name = new_name

            tell(self._host, found, Lifecycle.UNDEFINED, Undefined.RENAMED)
            change_documents(found, Affect.CONFIG, change)
            del self._host.domains[domain.name]
            self._host.domains[new_name] = found
            tell(self._host, found, Lifecycle.DEFINED, Defined.RENAMED)


def _refuse_document(xml: str | None) -> None:
    if xml is not None:
        raise refused(ErrorCode.ARGUMENT_UNSUPPORTED, "xml modification unsupported")


def _write(to: str, document: DomainDefinition, name: str) -> None:
    text = document.format().encode()
    path = Path(to)
    try:
        with open(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            file.write(_MAGIC + _LENGTH.pack(len(text)) + text)
    except OSError as error:
        raise system_fault(error, f"saving domain '{name}' to '{to}': open failed", ErrorDomain.TEST) from error


def _read(source: str) -> DomainDefinition:
    try:
        with open(source, "rb") as file:
            head = file.read(len(_MAGIC))
            size = file.read(_LENGTH.size)
            text = file.read(_MOST + 1)
    except IsADirectoryError as error:
        raise system_fault(error, f"incomplete save header in '{source}'", ErrorDomain.TEST) from error
    except OSError as error:
        raise system_fault(error, f"cannot read domain image '{source}'", ErrorDomain.TEST) from error
    if len(head) < len(_MAGIC):
        raise _cut_off(f"incomplete save header in '{source}'")
    if head != _MAGIC:
        raise refused(ErrorCode.INTERNAL_ERROR, "mismatched header magic")
    if len(size) < _LENGTH.size:
        raise _cut_off(f"failed to read metadata length in '{source}'")
    length = _LENGTH.unpack(size)[0]
    if not 1 <= length <= _MOST:
        raise refused(ErrorCode.INTERNAL_ERROR, "length of metadata out of range")
    return parse_domain(text[:length].decode(errors="replace"), is_given=False)


def _cut_off(what: str) -> VirtError:
    return VirtError(ErrorCode.SYSTEM_ERROR, f"{what}: the file ends there", domain=ErrorDomain.TEST)
