"""The drivers of a remote connection: the calls of :mod:`hostel.drivers.adapters`, made instead of answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.codec.xdr import split_type
from hostel.drivers.adapters import ADAPTERS, PROCEDURE_OF, Adapter, Options, from_wire, to_wire, uuid_text
from hostel.drivers.base import DomainRef, Hole, NetworkRef, PoolRef, SecurityLabel, VolumeRef, VolumeRow
from hostel.drivers.base.interface import InterfaceRef
from hostel.drivers.base.network import DEFAULT_NETWORK, AddressType, DhcpLease, NetworkPortRef
from hostel.drivers.base.nodedev import NodeDeviceRef
from hostel.drivers.base.nwfilter import NwfilterBindingRef, NwfilterRef
from hostel.drivers.base.secret import SecretRef
from hostel.drivers.fault import fault
from hostel.drivers.remote.client import RpcClient, RpcStream
from hostel.drivers.remote.machine import RemoteMachines, wire
from hostel.drivers.remote.migration import RemoteMigration
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.wire.rpc.connection import StreamData, StreamEnd, StreamHole
from hostel.wire.rpc.packet import STREAM_MAX
from hostel.wire.rpc.procedure import Procedure
from hostel.wire.rpc.programs import REMOTE

_NEEDED: Final = 1  # of a list: the objects, and not only how many
_EVERYTHING: Final = 0
_SPARSE: Final = 1
_FORCE: Final = 1
_TEXT_OKAY: Final = 4  # VIR_TYPED_PARAM_STRING_OKAY: we know parameters that are texts


class Caller:
    """A method made of an adapter: takes what the driver's method does, and calls the procedure.

    Args:
        client: the connection.
        procedure: what is called.
        adapter: its row.
    """

    def __init__(self, client: RpcClient, procedure: Procedure, adapter: Adapter) -> None:
        self._client = client
        self._procedure = procedure
        self._adapter = adapter
        fields = list(procedure.arguments.fields)
        self._has_flags = bool(fields) and fields[-1].name == "flags"
        if self._has_flags:
            fields.pop()
        if adapter.counted:
            fields = [field for field in fields if field.name != "nparams"]
        self._fields = [(field, to_wire(field)) for field in fields]
        self._results = [from_wire(field) for field in procedure.result.fields]

    def __call__(self, *given: Any, **options: Any) -> Any:
        """Call."""
        arguments = [
            value if convert is None else convert(value)
            for (_, convert), value in zip(self._fields, given, strict=False)
        ]
        extra = list(given[len(self._fields) :])
        for field, convert in self._fields[len(arguments) :]:
            value = options.pop(field.name, None if field.type.endswith("?") else 0)
            arguments.append(value if convert is None or value is None else convert(value))
        if self._has_flags:
            arguments.append(self._flags(extra, options))
        options.pop("progress", None)
        if options:
            raise fault(ErrorCode.NO_SUPPORT, f"{', '.join(options)} of {self._procedure.name}", ErrorDomain.REMOTE)
        if self._adapter.counted:
            return self._counted(arguments)
        result = self._client.call(self._procedure.name, *arguments)
        if self._adapter.make is not None:
            return self._adapter.make(*result)
        values = [
            value if convert is None else convert(value) for value, convert in zip(result, self._results, strict=True)
        ]
        return values[0] if values else None

    def _flags(self, extra: list[Any], options: dict[str, Any]) -> int:
        flags = self._adapter.flags
        if isinstance(flags, Mapping):
            return _bits(flags, options)
        value = _TEXT_OKAY if self._adapter.counted else 0
        for one in extra:
            value |= int(one) if isinstance(one, int) else 0
        for name in ("flags", "affect"):
            value |= int(options.pop(name, 0))
        return value

    def _counted(self, arguments: list[Any]) -> Any:
        place = next(i for i, field in enumerate(self._procedure.arguments.fields) if field.name == "nparams")
        call = self._procedure.name
        results = self._procedure.result.fields
        if len(results) == 1:  # it does not say how many there are
            count = split_type(results[0].type)[2]
        else:
            count = self._client.call(call, *arguments[:place], 0, *arguments[place:])[-1]
        if not count:
            return {}
        parameters = self._client.call(call, *arguments[:place], count, *arguments[place:])[0]
        return {name: value for name, (_, value) in parameters}


def _bits(flags: Options, options: dict[str, Any]) -> int:
    """The bits that say what options do, which are taken away."""
    value, said = 0, set[str]()
    for bit, meaning in sorted(flags.items(), key=lambda item: -len(item[1])):
        if said.isdisjoint(meaning) and all(options.get(name) == wanted for name, wanted in meaning.items()):
            value |= bit
            said |= set(meaning)
    for name in {name for meaning in flags.values() for name in meaning}:
        options.pop(name, None)
    return value


class _Method:
    """A method of a driver that calls a procedure; it is made when it is first used."""

    def __init__(self, name: str, procedure: str) -> None:
        self._name = name
        self._procedure = procedure

    def __get__(self, driver: RemoteDriver | None, owner: object = None) -> Any:
        if driver is None:
            return self
        caller = Caller(driver._client, REMOTE.by_name[self._procedure], ADAPTERS[self._procedure])
        driver.__dict__[self._name] = caller
        return caller


class RemoteDriver:
    """One of a connection's drivers.

    Its class has a method for each procedure of its ``kind``, as adapters call it: from Python 3.12 on, whether an
    object keeps a protocol is looked up in its class, and not by what ``__getattr__`` finds.

    Args:
        client: the connection.
    """

    def __init_subclass__(cls, *, kind: str) -> None:
        for name, procedure in PROCEDURE_OF.items():
            if ADAPTERS[procedure].driver == kind and not hasattr(cls, name):
                setattr(cls, name, _Method(name, procedure))

    def __init__(self, client: RpcClient) -> None:
        self._client = client

    if TYPE_CHECKING:
        # What is installed is not seen by who checks types.
        def __getattr__(self, name: str) -> Any: ...

    def _list(self, procedure: str, *arguments: Any, flags: int = _EVERYTHING) -> list[Any]:
        convert = from_wire(REMOTE.by_name[procedure].result.fields[0])
        assert convert is not None
        return [convert(item) for item in self._client.call(procedure, *arguments, _NEEDED, flags)[0]]

    def close(self) -> None:
        """Nothing: the connection is the hypervisor's."""


class RemoteHypervisor(RemoteMachines, RemoteMigration, RemoteDriver, kind="hypervisor"):
    """Implements :class:`hostel.drivers.base.HypervisorDriver`; its end is the connection's."""

    def connect_list_all_domains(self) -> list[DomainRef]:
        """Every domain."""
        return self._list("connect_list_all_domains")

    def domain_create(self, domain: DomainRef, flags: int = 0) -> DomainRef:
        """Start a defined domain."""
        (started,) = self._client.call("domain_create_with_flags", wire("domain", domain), int(flags))
        return DomainRef(started.name, uuid_text(started.uuid), started.id)

    def domain_open_console(
        self, domain: DomainRef, device: str | None = None, *, force: bool = False
    ) -> RemoteConsole:
        """Attach to a console."""
        flags = _FORCE if force else 0
        return RemoteConsole(self._client.open_stream("domain_open_console", wire("domain", domain), device, flags))

    def domain_open_channel(self, domain: DomainRef, name: str | None = None, *, force: bool = False) -> RemoteConsole:
        """Attach to a channel."""
        flags = _FORCE if force else 0
        return RemoteConsole(self._client.open_stream("domain_open_channel", wire("domain", domain), name, flags))

    def domain_get_security_label_list(self, domain: DomainRef) -> list[SecurityLabel]:
        """The labels of a running domain."""
        (labels, _) = self._client.call("domain_get_security_label_list", wire("domain", domain))
        return [SecurityLabel(label.split(b"\0")[0].decode(), bool(enforcing)) for label, enforcing in labels]

    def connect_autostart(self) -> list[DomainRef]:
        """Nothing: the daemon has done so."""
        return []

    def close(self) -> None:
        """End the connection."""
        self._client.take_leave()


class RemoteNetwork(RemoteDriver, kind="network"):
    """Implements :class:`hostel.drivers.base.NetworkDriver`."""

    def connect_list_all_networks(self) -> list[NetworkRef]:
        """Every network."""
        return self._list("connect_list_all_networks")

    def network_is_as_installed(self, network: NetworkRef) -> bool:
        """Perhaps, where it has the name: the other side does not say, and starts it or refuses the guest."""
        return network.name == DEFAULT_NETWORK

    def network_list_all_ports(self, network: NetworkRef) -> list[NetworkPortRef]:
        """What guests are plugged into."""
        return self._list("network_list_all_ports", wire("network", network))

    def network_get_dhcp_leases(self, network: NetworkRef, mac: str | None = None) -> list[DhcpLease]:
        """The addresses that were given out."""
        (leases, _) = self._client.call("network_get_dhcp_leases", wire("network", network), mac, _NEEDED, 0)
        return [DhcpLease(*lease)._replace(type=AddressType(lease.type)) for lease in leases]


class RemoteSecret(RemoteDriver, kind="secret"):
    """Implements :class:`hostel.drivers.base.secret.SecretDriver`."""

    def connect_list_all_secrets(self) -> list[SecretRef]:
        """Every secret."""
        return self._list("connect_list_all_secrets")


class RemoteNwfilter(RemoteDriver, kind="nwfilter"):
    """Implements :class:`hostel.drivers.base.nwfilter.NwfilterDriver`."""

    def connect_list_all_nwfilters(self) -> list[NwfilterRef]:
        """Every filter."""
        return self._list("connect_list_all_nwfilters")

    def connect_list_all_nwfilter_bindings(self) -> list[NwfilterBindingRef]:
        """Every binding."""
        return self._list("connect_list_all_nwfilter_bindings")


class RemoteInterface(RemoteDriver, kind="interface"):
    """Implements :class:`hostel.drivers.base.interface.InterfaceDriver`."""

    def connect_list_all_interfaces(self) -> list[InterfaceRef]:
        """Every interface."""
        return self._list("connect_list_all_interfaces")


class RemoteNodeDevice(RemoteDriver, kind="node_device"):
    """Implements :class:`hostel.drivers.base.nodedev.NodeDeviceDriver`."""

    def connect_list_all_node_devices(self, flags: int = 0) -> list[NodeDeviceRef]:
        """Every device, or those that the flags name."""
        return self._list("connect_list_all_node_devices", flags=flags)

    def node_device_list_caps(self, device: NodeDeviceRef) -> list[str]:
        """What it is."""
        (count,) = self._client.call("node_device_num_of_caps", device)
        names: list[str] = self._client.call("node_device_list_caps", device, count)[0]
        return names


class RemoteStorage(RemoteDriver, kind="storage"):
    """Implements :class:`hostel.drivers.base.StorageDriver`."""

    def connect_list_all_storage_pools(self) -> list[PoolRef]:
        """Every pool."""
        return self._list("connect_list_all_storage_pools")

    def storage_pool_list_all_volumes(self, pool: PoolRef) -> list[VolumeRef]:
        """The volumes of a pool."""
        return self._list("storage_pool_list_all_volumes", wire("pool", pool))

    def storage_pool_list_volume_rows(self, pool: PoolRef, *, details: bool = False) -> list[VolumeRow]:
        """The same with their paths; libvirt's protocol asks for each volume by itself."""
        rows = []
        for volume in self.storage_pool_list_all_volumes(pool):
            try:
                info = self.storage_vol_get_info(volume) if details else None
                rows.append(VolumeRow(volume, self.storage_vol_get_path(volume), info))
            except VirtError as error:
                if error.code is not ErrorCode.NO_STORAGE_VOL:  # it went away meanwhile
                    raise
        return rows

    def storage_vol_download(
        self, volume: VolumeRef, offset: int = 0, length: int = 0, *, sparse: bool = False
    ) -> Iterator[memoryview | Hole]:
        """A volume's bytes; see :class:`hostel.drivers.base.StorageDriver`."""
        flags = _SPARSE if sparse else 0
        stream = self._client.open_stream("storage_vol_download", volume, offset, length, flags)
        ended = False
        try:
            while not ended:
                event = stream.receive()
                if isinstance(event, StreamHole):
                    yield Hole(event.length)
                elif isinstance(event, StreamData) and event.data:
                    yield memoryview(event.data)
                else:
                    ended = True
            stream.finish()
        except GeneratorExit:
            stream.abort()
            raise

    def storage_vol_upload(
        self,
        volume: VolumeRef,
        source: Iterable[bytes | memoryview | Hole],
        offset: int = 0,
        length: int = 0,
        *,
        trusted: bool = False,
    ) -> None:
        """Overwrite a volume's bytes; see :class:`hostel.drivers.base.StorageDriver`."""
        stream = self._client.open_stream("storage_vol_upload", volume, offset, length, _SPARSE)
        try:
            for piece in source:
                if isinstance(piece, Hole):
                    stream.send_hole(piece.length)
                    continue
                view = memoryview(piece).cast("B")
                for start in range(0, len(view), STREAM_MAX):
                    stream.send(view[start : start + STREAM_MAX])
        except BaseException:
            stream.abort()
            raise
        stream.finish()


class RemoteConsole:
    """A guest's console over a stream; a :class:`hostel.drivers.base.ConsoleStream`."""

    def __init__(self, stream: RpcStream) -> None:
        self._stream = stream
        self._rest = b""
        self._is_over = False

    def read(self, length: int, timeout: float) -> bytes | None:
        """Read up to ``length`` bytes; ``b""`` at the end, None when nothing came in ``timeout`` seconds."""
        if not self._rest and not self._is_over:
            event = self._stream.receive(timeout)
            if event is None:
                return None
            if isinstance(event, StreamData) and event.data:
                self._rest = bytes(event.data)
            elif isinstance(event, StreamData | StreamEnd):
                self._is_over = True
        data, self._rest = self._rest[:length], self._rest[length:]
        return data

    def write(self, data: bytes) -> None:
        """Write all of ``data``."""
        for start in range(0, len(data), STREAM_MAX):
            self._stream.send(data[start : start + STREAM_MAX])

    def close(self) -> None:
        """Detach."""
        self._stream.abort()
