"""Errors in libvirt's words: a code with its fixed beginning, and what the driver has to say.

``fault(ErrorCode.NO_DOMAIN, "no domain with matching name 'web1'")`` reads ``Domain not found: no domain with …``, as
libvirt's ``virErrorMsg()`` puts it together (``src/util/virerror.c``).
"""

from __future__ import annotations

from typing import Final

from hostel.cause import sentence
from hostel.errors import ErrorCode, ErrorDomain, HostelError, VirtError

_BEGINNINGS: Final[dict[ErrorCode, str]] = {
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


def fault(code: ErrorCode, detail: str, domain: ErrorDomain = ErrorDomain.NONE) -> VirtError:
    """Build the error of ``code`` about ``detail``, which is one line."""
    return VirtError(code, _BEGINNINGS.get(code, "%s") % detail, domain=domain)


def printable(text: str) -> str:
    r"""Write what would move a terminal's cursor as ``\xNN``: a name may come from an image, and forge anything."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in text
    )


def system_fault(
    error: OSError,
    doing: str,
    domain: ErrorDomain = ErrorDomain.NONE,
    *,
    path: str | None = None,
    removing: bool = False,
) -> VirtError:
    """The host refused: ``doing`` (``cannot create path '/x'``), the host's reason and what is behind it.

    Args:
        error: the refusal.
        doing: what was tried.
        domain: which part of the system speaks.
        path: the file it is about, where the error does not say: one that is open.
        removing: a file was to be removed or renamed, about which its directory decides.
    """
    if error.filename is None and path is not None and not isinstance(error, HostelError):
        error = OSError(error.errno, error.strerror, path)
    reason = printable(sentence(error, removing=removing))
    return VirtError(ErrorCode.SYSTEM_ERROR, f"{doing}: {reason}", domain=domain)
