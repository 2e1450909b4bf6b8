"""What ``libvirtd.conf`` says to libvirt's daemon: none of it is acted on here, and none is passed over in silence.

Ours has a file of its own (:mod:`~hostel.daemon.config`), since its limits and rules are others. Who comes from libvirt
is told at each start what his settings are called here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hostel.codec.assignments import Dialect, Value, parse
from hostel.drivers.store import Directories
from hostel.errors import ModelError

_SYSTEM: Final = Path("/etc/libvirt/libvirtd.conf")
_PORTS: Final = "a [tls] or [tcp] section with listen"
_FOLDER: Final = "certificates of [tls]"
_NONE: Final = "there is no such thing here"
# What each setting is called here, or why it has no name.
_HERE: Final[dict[str, str]] = {
    **dict.fromkeys(("listen_tls", "listen_tcp", "tls_port", "tcp_port", "listen_addr"), _PORTS),
    **dict.fromkeys(("key_file", "cert_file", "ca_file", "crl_file"), _FOLDER),
    "unix_sock_group": "group of [daemon]",
    "unix_sock_dir": "socket of [daemon]",
    "unix_sock_rw_perms": "group of [daemon], whose members may use the socket, or nobody else",
    "unix_sock_ro_perms": "group of [daemon]; who may look is said by [[rule]]",
    "auth_unix_rw": "[[rule]]; PolicyKit is not asked",
    "auth_unix_ro": "[[rule]]; PolicyKit is not asked",
    "auth_tls": "auth of [tls]",
    "auth_tcp": "auth of [tcp]",
    "access_drivers": "[[rule]]",
    "tls_allowed_dn_list": "allowed_names of [tls]",
    "sasl_allowed_username_list": "[[rule]] with user",
    "max_clients": "clients of [limits]",
    "max_anonymous_clients": "unopened of [limits]",
    "max_workers": "workers of [limits]",
    "max_client_requests": "requests of [limits]",
    "keepalive_interval": "keepalive_interval of [limits]",
    "keepalive_count": "keepalive_count of [limits]",
    "log_level": "--log and --quiet",
    "log_filters": "--log and --quiet",
    "log_outputs": "standard error, where the log goes",
}
# What is so here anyway: libvirt's own defaults that have nothing behind them here.
_SO_ANYWAY: Final[dict[str, tuple[Value, ...]]] = {
    "listen_tls": (0,),
    "listen_tcp": (0,),
    "auth_unix_rw": ("none",),
    "auth_unix_ro": ("none",),
    "tls_no_verify_certificate": (0,),
    "tls_no_sanity_certificate": (0, 1),
    "audit_logging": (0,),
    "audit_level": (0,),
    "keepalive_required": (0,),
}


def unheeded(directories: Directories) -> list[tuple[str, str]]:
    """Each setting of the file that is not acted on, and what it is called here; the file's name alone if it is none.

    Args:
        directories: which session's.
    """
    is_system = directories == Directories.system()
    path = _SYSTEM if is_system else directories.config.parent / "libvirt/libvirtd.conf"
    try:
        found = {item.name: item.value for item in parse(path.read_text(), Dialect.XEN)}
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, ModelError) as error:
        return [(str(path), f"it cannot be read: {error}")]
    return [(name, _HERE.get(name, _NONE)) for name, value in found.items() if value not in _SO_ANYWAY.get(name, ())]
