"""What ``--object help`` and ``--object TYPE,help`` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hostel.block.filters.throttle import PROPERTIES

_TEXT: Final = "string"
_INT: Final = "int"
_SECRET: Final = {"format": "QCryptoSecretFormat", "iv": _TEXT, "keyid": _TEXT}
_LOOP: Final = {"aio-max-batch": _INT, "thread-pool-max": _INT, "thread-pool-min": _INT}
_TLS: Final = {"dir": _TEXT, "endpoint": "QCryptoTLSCredsEndpoint", "priority": _TEXT, "verify-peer": "bool"}
# By type, its properties as QEMU's object model calls their types.
_PROPERTIES: Final = {
    "authz-list": {"policy": "QAuthZListPolicy", "rules": "QAuthZListRule"},
    "authz-listfile": {"filename": _TEXT, "refresh": "bool"},
    "authz-simple": {"identity": _TEXT},
    "iothread": {**_LOOP, "poll-grow": _INT, "poll-max-ns": _INT, "poll-shrink": _INT},
    "main-loop": _LOOP,
    "pr-manager-helper": {"path": _TEXT},
    "secret": {"data": _TEXT, "file": _TEXT, **_SECRET},
    "secret_keyring": {**_SECRET, "serial": "int32_t"},
    "thread-context": {"cpu-affinity": _INT, "node-affinity": _INT},
    "throttle-group": {"limits": "ThrottleLimits", **{f"x-{name}": _INT for name in PROPERTIES}},
    "tls-cipher-suites": _TLS,
    "tls-creds-anon": _TLS,
    "tls-creds-psk": {**_TLS, "username": _TEXT},
    "tls-creds-x509": {**_TLS, "passwordid": _TEXT, "sanity-check": "bool"},
}


def object_help(kind: str, types: Sequence[str]) -> str:
    """What is said of a type: its properties, or of what is none of ``types``: which there are."""
    if kind not in types:
        return "List of user creatable objects:\n" + "".join(f"  {name}\n" for name in sorted(types))
    # Sorted with the sign that follows them, as in QEMU.
    lines = sorted(f"  {name}=<{type}>\n" for name, type in _PROPERTIES[kind].items())
    return f"{kind} options:\n" + "".join(lines)
