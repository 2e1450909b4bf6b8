"""The files by which dnsmasq serves a network's names and addresses (``networkDnsmasqConfContents``)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from hostel.errors import ErrorCode, ModelError
from hostel.model.address import prefix_of, read_address
from hostel.model.network import Dhcp, DhcpHost, Dns, DnsService, Lease, Network, NetworkIp

_NOTICE = "# Written anew whenever the network {name} is started: change it with virsh net-edit\n"


def configuration(network: Network, folder: str, pid_file: str | None = None, *, stem: str | None = None) -> str:
    """The configuration for a completed network whose other files are in ``folder``.

    Args:
        network: the network.
        folder: where the files of hosts are.
        pid_file: where dnsmasq writes its process id.
        stem: how the names of these files begin; with the network's name, where it is None.

    Raises:
        ModelError: DHCP is asked for on two addresses of one family, a domain for reverse look-ups has no name, or a
            value would be two lines.
    """
    return _NOTICE.format(name=network.name) + _joined(
        _lines(network, f"{folder}/{network.name if stem is None else stem}", pid_file)
    )


def hosts_file(network: Network) -> str:
    """The addresses of certain guests, which are read again on a signal."""
    ips = (_with_dhcp(network, version) for version in (4, 6))
    hosts = (
        _host(host, version)
        for ip, version in zip(ips, (4, 6), strict=True)
        if ip is not None
        for host in _dhcp(ip).hosts
    )
    return _joined(hosts)


def names_file(network: Network) -> str:
    """The names of certain addresses, which are read again on a signal."""
    hosts = (network.dns or Dns()).hosts
    return _joined("\t".join([host.ip, *host.hostnames]) for host in hosts if host.ip is not None)


def _joined(lines: Iterable[str]) -> str:
    """The lines; a value that brings its own line ends must not become a setting."""
    found = list(lines)
    for line in found:
        if "\n" in line or "\r" in line:
            reason = f"a value for dnsmasq cannot have a line end: {line!r}"
            raise ModelError("/network", reason, code=ErrorCode.XML_DETAIL)
    return "".join(f"{line}\n" for line in found)


def _lines(network: Network, begin: str, pid_file: str | None) -> Iterator[str]:
    dns = network.dns or Dns()
    serves_names = dns.enable is not False
    yield "strict-order"  # ask the host's servers in the order that the C library asks them in
    if not serves_names:
        yield "port=0"
    else:
        yield from _forwarders(dns)
    if network.domain is not None:
        if network.domain.local_only:
            yield f"local=/{network.domain.name}/"
        yield f"domain={network.domain.name}"
        yield "expand-hosts"
    if serves_names:
        yield from (f"local=/{_reverse_domain(ip)}/" for ip in network.ips if ip.local_ptr)
        if dns.forward_plain_names is False:
            yield "domain-needed"
            yield "local=//"
    if pid_file is not None:
        yield f"pid-file={pid_file}"
    yield "except-interface=lo"
    # An address to listen on would also answer what comes in elsewhere (CVE-2012-3411).
    yield "bind-dynamic"
    yield f"interface={network.bridge.name if network.bridge is not None else ''}"
    if network.forward is None:
        # No route and no look-ups that lead out of an isolated network.
        yield from ("dhcp-option=3", "no-resolv", "ra-param=*,0,0")
    if serves_names:
        yield from (f"txt-record={text.name},{text.value}" for text in dns.texts)
        yield from map(_service, dns.services)
    yield from _addresses(network, begin, serves_names=serves_names)
    yield from (option.value for option in (network.dnsmasq.options if network.dnsmasq is not None else ()))


def _forwarders(dns: Dns) -> Iterator[str]:
    for forwarder in dns.forwarders:
        domain = f"/{forwarder.domain}/" if forwarder.domain is not None else ""
        yield f"server={domain}{forwarder.addr or '#'}"
    if any(forwarder.addr is not None and forwarder.domain is None for forwarder in dns.forwarders):
        yield "no-resolv"


def _reverse_domain(ip: NetworkIp) -> str:
    address = _address(ip)
    prefix = prefix_of(address, ip.netmask, ip.prefix) or 0
    step = 8 if address.version == 4 else 4
    if prefix == 0 or prefix >= address.max_prefixlen or prefix % step:
        reason = f"PTR domain for IPv{address.version} network with prefix {prefix} cannot be automatically created"
        raise ModelError("/network/ip/@localPtr", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    labels = address.reverse_pointer.split(".")
    return ".".join(labels[(address.max_prefixlen - prefix) // step :])


def _service(service: DnsService) -> str:
    domain = f".{service.domain}" if service.domain is not None else ""
    line = f"srv-host=_{service.service}._{service.protocol}{domain}"
    if service.target is None or service.target == ".":
        return line
    rest = [service.port or 1, service.priority or 0, service.weight or 0]
    needed = 3 if service.weight else 2 if service.priority else 1 if service.port else 0
    return ",".join([line, service.target, *map(str, rest[:needed])])


def _addresses(network: Network, begin: str, *, serves_names: bool) -> Iterator[str]:
    ipv4, ipv6 = (_with_dhcp(network, version) for version in (4, 6))
    roots = [ip.tftp_root for ip in network.ips if ip.tftp_root is not None]
    if roots:
        yield "enable-tftp"
        yield from (f"tftp-root={root}" for root in roots)
    leases = 0
    for ip in filter(None, (ipv4, ipv6)):
        yield from _dhcp_lines(ip)
        leases += sum(_size(range.start, range.end) for range in _dhcp(ip).ranges)
    if leases:
        yield f"dhcp-lease-max={leases}"
    # Both files are there even where they are empty, so that hosts can be added while dnsmasq runs.
    if ipv4 is not None or ipv6 is not None:
        yield f"dhcp-hostsfile={begin}.hostsfile"
    if serves_names:
        yield f"addn-hosts={begin}.addnhosts"
    if network.mtu:
        yield f"dhcp-option=option:mtu,{network.mtu}"
    if ipv6 is not None:
        yield "enable-ra"
    else:
        yield from (f"dhcp-range={ip.address},ra-only" for ip in network.ips if _address(ip).version == 6)


def _dhcp_lines(ip: NetworkIp) -> Iterator[str]:
    address, dhcp = _address(ip), _dhcp(ip)
    prefix = prefix_of(address, ip.netmask, ip.prefix)
    mask = str(prefix) if address.version == 6 else str(ipaddress.IPv4Network((0, prefix or 0)).netmask)
    for range in dhcp.ranges:
        yield ",".join([f"dhcp-range={range.start}", range.end, mask, *_lease(range.lease)])
    if not dhcp.ranges:
        yield f"dhcp-range={ip.address},static" + (f",{prefix}" if address.version == 6 else "")
    if address.version == 4:
        yield "dhcp-no-override"
        yield "dhcp-authoritative"
        if dhcp.bootp is not None:
            yield f"dhcp-boot={dhcp.bootp.file}" + (f",,{dhcp.bootp.server}" if dhcp.bootp.server is not None else "")


def _host(host: DhcpHost, version: int) -> str:
    if version == 6:
        names = [f"id:{host.id}"] if host.id is not None else []
        names += [host.name] if host.name is not None else []
        return ",".join([*names, f"[{host.ip}]", *_lease(host.lease)])
    parts = [host.mac, host.ip, host.name] if host.mac is not None else [host.name, host.ip]
    return ",".join([*filter(None, parts), *_lease(host.lease)])


def _lease(lease: Lease | None) -> list[str]:
    if lease is None:
        return []
    return [f"{lease.expiry}{(lease.unit or 'minutes')[0]}" if lease.expiry else "infinite"]


def _size(start: str, end: str) -> int:
    path = "/network/ip/dhcp/range"
    return int(read_address(end, path)) - int(read_address(start, path)) + 1


def _address(ip: NetworkIp) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return read_address(ip.address or "", "/network/ip/@address")


def _dhcp(ip: NetworkIp) -> Dhcp:
    return ip.dhcp or Dhcp()


def _with_dhcp(network: Network, version: int) -> NetworkIp | None:
    found = [ip for ip in network.ips if _address(ip).version == version and (_dhcp(ip).ranges or _dhcp(ip).hosts)]
    if len(found) > 1:
        reason = f"For IPv{version}, multiple DHCP definitions cannot be specified."
        raise ModelError("/network/ip/dhcp", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    return found[0] if found else None
