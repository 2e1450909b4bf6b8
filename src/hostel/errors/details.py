"""What libvirt's error struct says beside code and text: the text's pattern, what was put there, and numbers.

Programs read them: ``get_int1()`` of a refusal of the host's is its errno, ``get_str1()`` of an argument that was
refused is the function that did so (``src/util/virerror.c``, ``src/util/virerror.h``).
"""

from __future__ import annotations

import errno
import os
import re
from typing import Final, NamedTuple

from hostel.errors import ErrorCode, VirtError

# By code: how its texts begin, and where what there is to say goes.
BEGINNINGS: Final[dict[ErrorCode, str]] = {
    ErrorCode.INTERNAL_ERROR: "internal error: %s",
    ErrorCode.NO_SUPPORT: "this function is not supported by the connection driver: %s",
    ErrorCode.NO_CONNECT: "no connection driver available for %s",
    ErrorCode.INVALID_ARG: "invalid argument: %s",
    ErrorCode.OPERATION_FAILED: "operation failed: %s",
    ErrorCode.OPERATION_DENIED: "operation forbidden: %s",
    ErrorCode.OPERATION_INVALID: "Requested operation is not valid: %s",
    ErrorCode.OPERATION_UNSUPPORTED: "Operation not supported: %s",
    ErrorCode.OPERATION_ABORTED: "operation aborted: %s",
    ErrorCode.OPERATION_TIMEOUT: "Timed out during operation: %s",
    ErrorCode.CONF_SYNTAX: "configuration file syntax error: %s",
    ErrorCode.PARSE_FAILED: "failed to parse configuration file %s",
    ErrorCode.XML_ERROR: "XML error: %s",
    ErrorCode.XML_INVALID_SCHEMA: "XML document failed to validate against schema: %s",
    ErrorCode.NO_SECRET: "Secret not found: %s",
    ErrorCode.INVALID_SECRET: "Invalid secret: %s",
    ErrorCode.CPU_INCOMPATIBLE: "the CPU is incompatible with host CPU: %s",
    ErrorCode.CONFIG_UNSUPPORTED: "unsupported configuration: %s",
    ErrorCode.STORAGE_PROBE_FAILED: "Storage pool probe failed: %s",
    ErrorCode.STORAGE_POOL_BUILT: "Storage pool already built: %s",
    ErrorCode.DOM_EXIST: "domain %s exists already",
    ErrorCode.NO_DOMAIN: "Domain not found: %s",
    ErrorCode.NO_DOMAIN_METADATA: "metadata not found: %s",
    ErrorCode.NO_HOSTNAME: "no hostname found: %s",
    ErrorCode.NO_NETWORK: "Network not found: %s",
    ErrorCode.NO_NETWORK_PORT: "network port not found: %s",
    ErrorCode.INVALID_MAC: "invalid MAC address: %s",
    ErrorCode.NO_INTERFACE: "Interface not found: %s",
    ErrorCode.MULTIPLE_INTERFACES: "multiple matching interfaces found: %s",
    ErrorCode.NO_NWFILTER: "Network filter not found: %s",
    ErrorCode.NO_NWFILTER_BINDING: "Network filter binding not found: %s",
    ErrorCode.NO_NODE_DEVICE: "Node device not found: %s",
    ErrorCode.NO_STORAGE_POOL: "Storage pool not found: %s",
    ErrorCode.NO_STORAGE_VOL: "Storage volume not found: %s",
    ErrorCode.STORAGE_VOL_EXIST: "storage volume %s exists already",
    ErrorCode.RESOURCE_BUSY: "resource busy: %s",
    ErrorCode.ARGUMENT_UNSUPPORTED: "argument unsupported: %s",
    ErrorCode.OVERFLOW: "numerical overflow: %s",
}

# Those of codes whose texts are written whole here.
_MORE: Final = {
    ErrorCode.NO_MEMORY: "out of memory: %s",
    ErrorCode.UNKNOWN_HOST: "unknown host %s",
    ErrorCode.INVALID_CONN: "invalid connection pointer in %s",
    ErrorCode.INVALID_DOMAIN: "invalid domain pointer in %s",
    ErrorCode.OS_TYPE: "unknown OS type %s",
    ErrorCode.NO_KERNEL: "missing kernel information: %s",
    ErrorCode.NO_ROOT: "missing root device information in %s",
    ErrorCode.NO_SOURCE: "missing source information for device %s",
    ErrorCode.NO_TARGET: "missing target information for device %s",
    ErrorCode.NO_NAME: "missing name information in %s",
    ErrorCode.NO_OS: "missing operating system information for %s",
    ErrorCode.NO_DEVICE: "missing devices information for %s",
    ErrorCode.CALL_FAILED: "library call failed: %s",
    ErrorCode.OPEN_FAILED: "failed to open configuration file %s",
    ErrorCode.READ_FAILED: "failed to read configuration file %s",
    ErrorCode.WRITE_FAILED: "failed to write configuration file: %s",
    ErrorCode.INVALID_NETWORK: "invalid network pointer in %s",
    ErrorCode.NETWORK_EXIST: "network %s exists already",
    ErrorCode.AUTH_FAILED: "authentication failed: %s",
    ErrorCode.INVALID_STORAGE_POOL: "invalid storage pool pointer in %s",
    ErrorCode.INVALID_STORAGE_VOL: "invalid storage volume pointer in %s",
    ErrorCode.INVALID_NODE_DEVICE: "invalid node device pointer in %s",
    ErrorCode.NO_SECURITY_MODEL: "Security model not found: %s",
    ErrorCode.INVALID_INTERFACE: "invalid interface pointer in %s",
    ErrorCode.INVALID_NWFILTER: "Invalid network filter: %s",
    ErrorCode.BUILD_FIREWALL: "Error while building firewall: %s",
    ErrorCode.MIGRATE_PERSIST_FAILED: "Failed to make domain persistent after migration: %s",
    ErrorCode.HOOK_SCRIPT_FAILED: "Hook script execution failed: %s",
    ErrorCode.INVALID_DOMAIN_SNAPSHOT: "Invalid domain snapshot: %s",
    ErrorCode.NO_DOMAIN_SNAPSHOT: "Domain snapshot not found: %s",
    ErrorCode.INVALID_STREAM: "invalid stream pointer in %s",
    ErrorCode.SNAPSHOT_REVERT_RISKY: "revert requires force: %s",
    ErrorCode.AUTH_CANCELLED: "authentication cancelled: %s",
    ErrorCode.MIGRATE_UNSAFE: "Unsafe migration: %s",
    ErrorCode.BLOCK_COPY_ACTIVE: "block copy still active: %s",
    ErrorCode.SSH: "SSH transport error: %s",
    ErrorCode.AGENT_UNRESPONSIVE: "Guest agent is not responding: %s",
    ErrorCode.ACCESS_DENIED: "access denied: %s",
    ErrorCode.DBUS_SERVICE: "error from service: %s",
    ErrorCode.MIGRATE_FINISH_OK: "migration successfully aborted: %s",
    ErrorCode.AUTH_UNAVAILABLE: "authentication unavailable: %s",
    ErrorCode.NO_SERVER: "Server not found: %s",
    ErrorCode.NO_CLIENT: "Client not found: %s",
    ErrorCode.AGENT_UNSYNCED: "guest agent replied with wrong id to guest-sync command: %s",
    ErrorCode.LIBSSH: "libssh transport error: %s",
    ErrorCode.DEVICE_MISSING: "device not found: %s",
    ErrorCode.INVALID_NWFILTER_BINDING: "Invalid network filter binding: %s",
    ErrorCode.INVALID_DOMAIN_CHECKPOINT: "Invalid domain checkpoint: %s",
    ErrorCode.NO_DOMAIN_CHECKPOINT: "Domain checkpoint not found: %s",
    ErrorCode.NO_DOMAIN_BACKUP: "Domain backup job id not found: %s",
    ErrorCode.INVALID_NETWORK_PORT: "Invalid network port pointer: %s",
    ErrorCode.NETWORK_PORT_EXIST: "network port %s exists already",
    ErrorCode.CHECKPOINT_INCONSISTENT: "checkpoint inconsistent: %s",
    ErrorCode.MULTIPLE_DOMAINS: "multiple matching domains found: %s",
}


class Details(NamedTuple):
    """The members of the struct that follow its text."""

    str1: str | None
    str2: str | None
    str3: str | None
    int1: int
    int2: int


_FLAGS: Final = re.compile(r"unsupported flags \(0x[0-9a-f]+\) in function (\w+)")
_ARGUMENT: Final = re.compile(r"(?:string )?(\w+) in (\w+) must .*")
# What is said where nothing was put there, by how the pattern begins.
_SHORT: Final = {
    f"{text} {word} ": text
    for text, word in (
        ("missing name information", "in"),
        ("missing operating system information", "for"),
        ("missing devices information", "for"),
        ("missing root device information", "in"),
    )
} | {"out of memory: ": "out of memory"}
_HOST: Final = {os.strerror(number): number for number in errno.errorcode}


def details(error: VirtError) -> Details:
    """The details of an error: those that came with it, or else what its code and its text tell."""
    if error.details is not None:
        return Details(*error.details)
    message = error.message
    if error.code == ErrorCode.INVALID_ARG:
        if match := _FLAGS.fullmatch(message):
            return Details(match[1], "flags", None, 0, 0)
        if match := _ARGUMENT.fullmatch(message):
            return Details(match[2], match[1], None, 0, 0)
    pattern, said = _split(message, BEGINNINGS.get(error.code) or _MORE.get(error.code, "%s"))
    return Details(pattern, said, None, _number(message) if error.code == ErrorCode.SYSTEM_ERROR else -1, -1)


def _split(message: str, pattern: str) -> tuple[str, str | None]:
    """A text's pattern, and what was put there; nothing was where the text is all that its code says."""
    head, _, tail = pattern.partition("%s")
    if message == _SHORT.get(head):
        return message, None
    if message.startswith(head) and message.endswith(tail):
        return pattern, message[len(head) : len(message) - len(tail)]
    return "%s", message


def _number(message: str) -> int:
    """The errno of what the host said, which stands at the end of the text or before what explains it."""
    for part in reversed(message.split(": ")):
        if (number := _HOST.get(part.partition(";")[0])) is not None:
            return number
    return -1
