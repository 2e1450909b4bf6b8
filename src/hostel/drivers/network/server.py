"""dnsmasq as it serves a network: started, found again by whoever comes next, told of changes, and ended.

It puts itself into the background, and writes its process id down before the command ends; what it has against its
configuration is said by the command. Its files are named for the network's bridge.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from hostel.cause import in_line
from hostel.cause.holder import port_hint
from hostel.drivers import procstat, signals, tool
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.network.dnsmasq import configuration, hosts_file, names_file
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.network import Network

_SECONDS: Final = 30.0
_GRACE: Final = 5.0  # seconds until it is killed
_POLL: Final = 0.02
_DNS_PORT: Final = 53
_DHCP_PORT: Final = 67
_MAX_LEASES: Final = 32 << 20  # bytes, as libvirt reads of its own file


class _Found(NamedTuple):
    """A process, by its number and when it was started."""

    pid: int
    started: int

    def runs(self) -> bool:
        """Whether it has not ended, whoever has its number now."""
        return procstat.runs(self.pid, self.started)

    def send(self, number: int) -> bool:
        """Send it a signal; whether it was there."""
        return signals.send(self.pid, number, self.runs)


class DnsmasqServer:
    """The dnsmasq of each network.

    Args:
        folder: of configurations and process ids, for as long as the host runs.
        leases: of what was given out, kept for ever.
    """

    def __init__(self, folder: Path, leases: Path) -> None:
        self._folder = folder
        self._leases = leases

    def bring_up(self, network: Network) -> None:
        """Have dnsmasq serve a network as its document says: start it, start it anew, or tell it of what changed.

        Raises:
            VirtError: it is not installed, or what it says of its configuration.
            ModelError: the document cannot be put into words.
        """
        bridge = _bridge(network)
        if not is_needed(network):
            self.end(bridge)
            return
        settings = configuration(network, str(self._folder), str(self._pid_file(bridge)), stem=bridge)
        hosts = {
            self._path(bridge, "hostsfile"): hosts_file(network),
            self._path(bridge, "addnhosts"): names_file(network),
        }
        untold = self._path(bridge, "untold")  # there while the files say what dnsmasq may not know
        same = self._read(self._path(bridge, "conf")) == settings
        is_told = same and not untold.exists() and all(self._read(path) == text for path, text in hosts.items())
        found = self._found(bridge)
        if found is not None and is_told:
            return
        with _reporting(f"cannot write the configuration of network '{network.name}' into '{self._folder}'"):
            self._prepare()
            if found is not None and not same:
                self._test(bridge, settings)
            untold.touch()
            for path, text in {**hosts, self._path(bridge, "conf"): settings}.items():
                _replace(path, text)
        if not (found is not None and same and found.send(signal.SIGHUP)):
            self._end(bridge)
            self._run(bridge)
        untold.unlink()

    def end(self, bridge: str) -> None:
        """End what serves a bridge, and remove its files but for the leases.

        Raises:
            VirtError: it does not end.
        """
        self._end(bridge)
        for kind in ("conf", "hostsfile", "addnhosts", "untold", "test"):
            self._path(bridge, kind).unlink(missing_ok=True)
        self._pid_file(bridge).unlink(missing_ok=True)

    def forget_leases(self, bridge: str) -> None:
        """Forget which guest had which address."""
        self._lease_file(bridge).unlink(missing_ok=True)

    def leases(self, bridge: str) -> str:
        """What was given out, in the words of dnsmasq.

        Raises:
            VirtError: it cannot be read.
        """
        path = self._lease_file(bridge)
        with _reporting(f"Unable to read leases file: {path}"):
            try:
                with path.open("rb") as stream:
                    return stream.read(_MAX_LEASES).decode("utf-8", "replace")
            except FileNotFoundError:
                return ""

    def _run(self, bridge: str) -> None:
        command = ["dnsmasq", f"--conf-file={self._path(bridge, 'conf')}"]
        command.append(f"--dhcp-leasefile={self._lease_file(bridge)}")
        if not _is_open(self._folder):
            # It reads the files of hosts again as whoever it runs as, and they lie where only root may look.
            command += ["--user=root", "--group=root"]
        try:
            tool.run(command, ErrorDomain.NETWORK, timeout=_SECONDS)
        except VirtError as error:
            who = _taken(error.message)
            raise VirtError(error.code, f"{error.message}{who}", domain=error.domain) from error
        if self._found(bridge) is None:
            reason = f"dnsmasq for '{bridge}' ended as soon as it was started; see what it told the system's log"
            raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NETWORK)

    def _test(self, bridge: str, settings: str) -> None:
        """Have dnsmasq say what it has against a configuration, while the one with the old still serves.

        Raises:
            VirtError: what it says.
        """
        path = self._path(bridge, "test")
        _replace(path, settings)
        try:
            tool.run(["dnsmasq", "--test", f"--conf-file={path}"], ErrorDomain.NETWORK, timeout=_SECONDS)
        finally:
            path.unlink(missing_ok=True)

    def _prepare(self) -> None:
        # Everybody may look for files of a known name, for dnsmasq reads some again when it is no longer root.
        for folder in (*self._folder.parents[1::-1], self._folder, self._leases):
            folder.mkdir(parents=True, exist_ok=True)
            mode = folder.stat().st_mode
            if not mode & 0o001:
                folder.chmod(mode | 0o011)

    def _end(self, bridge: str) -> None:
        found = self._found(bridge)
        if found is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            found.send(number)
            deadline = time.monotonic() + _GRACE
            while time.monotonic() < deadline:
                if not found.runs():
                    return
                time.sleep(_POLL)
        raise fault(ErrorCode.INTERNAL_ERROR, f"dnsmasq ({found.pid}) of '{bridge}' does not end", ErrorDomain.NETWORK)

    def _found(self, bridge: str) -> _Found | None:
        """The process that serves a bridge; None where there is none, or its number is another's by now."""
        try:
            pid = int(self._pid_file(bridge).read_text())
            started = procstat.start_time(pid)
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")  # of one that has ended it is empty
        except (OSError, ValueError):
            return None
        if started is None or f"--conf-file={self._path(bridge, 'conf')}".encode() not in command:
            return None
        return _Found(pid, started)

    def _path(self, bridge: str, kind: str) -> Path:
        return self._folder / f"{bridge}.{kind}"

    def _pid_file(self, bridge: str) -> Path:
        return self._folder / f"{bridge}.pid"

    def _lease_file(self, bridge: str) -> Path:
        return self._leases / f"{bridge}.leases"

    @staticmethod
    def _read(path: Path) -> str | None:
        try:
            return path.read_text()
        except OSError:
            return None


def is_needed(network: Network) -> bool:
    """Whether there is anything to serve: an address, and names or guests' addresses or a boot file."""
    gives = any(
        ip.tftp_root is not None or (ip.dhcp is not None and (ip.dhcp.ranges or ip.dhcp.hosts)) for ip in network.ips
    )
    serves_names = network.dns is None or network.dns.enable is not False
    return bool(network.ips) and (gives or serves_names)


def _bridge(network: Network) -> str:
    return (network.bridge.name if network.bridge is not None else None) or ""


def _is_open(folder: Path) -> bool:
    """Whether everybody may look for files of a known name there."""
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.resolve().parents))


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(path)


@contextlib.contextmanager
def _reporting(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise system_fault(error, doing, ErrorDomain.NETWORK) from error


def _taken(said: str) -> str:
    """Who has the port that dnsmasq was to serve, for the end of its own words; empty where it says nothing of that."""
    if not said.endswith(os.strerror(errno.EADDRINUSE)):
        return ""
    if "DHCP" in said:
        hints, fix = [port_hint(_DHCP_PORT, udp=True)], ""
    else:
        hints = [port_hint(_DNS_PORT, udp=True), port_hint(_DNS_PORT)]
        fix = "; <dns enable='no'/> leaves out the name server"
    return "".join(f"; {in_line(hint)}" for hint in dict.fromkeys(hints) if hint) + fix
