"""A front end's connection: its messages set the queues up, and go on changing them while they run."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hostel.errors import NetworkError, RemoteProtocolError
from hostel.export.vhost_user_blk import unflushed
from hostel.export.vhost_user_blk.device import BlkDevice
from hostel.export.vhost_user_blk.queue import Queue
from hostel.export.vhost_user_blk.sharing import MAX_REGIONS, SharedMemory
from hostel.net.channel import close_all
from hostel.wire.vhost_user import message
from hostel.wire.vhost_user.message import BackendRequest, ConfigSpace, Message, ProtocolFeature, Request
from hostel.wire.virtio.blk import Feature
from hostel.wire.virtio.memory import GuestMemory
from hostel.wire.virtio.ring import Addresses

_TIMEOUT: Final = 10.0  # seconds in which a message that has begun must come, or be taken
_PROTOCOL_FEATURES: Final = int(
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.BACKEND_REQ
    | ProtocolFeature.CONFIG
    | ProtocolFeature.RESET_DEVICE
    | ProtocolFeature.INFLIGHT_SHMFD
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
)
_FLAG_OF_DRIVER: Final = 0  # of SET_CONFIG: the guest writes; 1 is a migration


class Connection:
    """One front end, from its first message to its last.

    Args:
        sock: the connected socket.
        device: what is served.
        report: told in one line what is broken.
    """

    def __init__(self, sock: socket.socket, device: BlkDevice, report: Callable[[str], None]) -> None:
        self._socket = sock
        self._device = device
        self._report = report
        self._queues = [Queue(index, device, report) for index in range(device.queues)]
        self._shared = SharedMemory()
        self._memory = GuestMemory()
        self._features = 0
        self._protocol_features = 0
        self._channel: socket.socket | None = None
        self._channel_lock = threading.Lock()  # what is sent on it comes from other threads

    def run(self) -> None:
        """Serve until the front end disconnects.

        Raises:
            RemoteProtocolError: it broke the protocol.
            OSError: the connection broke.
        """
        try:
            while (received := self._receive()) is not None:
                try:
                    self._handle(received)
                finally:
                    close_all(received.descriptors)
        finally:
            self._end()

    def _end(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._use_channel, None)
            with contextlib.ExitStack() as queues:
                for queue in self._queues:
                    queues.callback(queue.close)
            self._device.settle()

    def config_changed(self) -> None:
        """Tell the front end to look at the configuration space again, where it wants to hear of that."""
        with self._channel_lock, contextlib.suppress(OSError):
            if self._channel is not None and self._protocol_features & ProtocolFeature.CONFIG:
                # Where there is no room, what is there already says the same. The flag, since the front end may take
                # back what we have set.
                self._channel.send(message.send(BackendRequest.CONFIG_CHANGE_MSG), socket.MSG_DONTWAIT)

    def _use_channel(self, channel: socket.socket | None) -> None:
        with self._channel_lock:
            old, self._channel = self._channel, channel
            if old is not None:
                old.close()

    def _receive(self) -> Message | None:
        """Wait for a message; None at the connection's end."""
        self._socket.settimeout(None)
        size = message.HEADER.size
        room = socket.CMSG_SPACE(message.MAX_DESCRIPTORS * 4)
        data, ancillary, flags, _ = self._socket.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
        descriptors = array.array("i")
        for level, kind, sent in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(sent[: len(sent) // 4 * 4])
        try:
            if not data:
                return None
            if flags & socket.MSG_CTRUNC:
                raise RemoteProtocolError("a message comes with too many descriptors")
            self._socket.settimeout(_TIMEOUT)
            request, needs_reply, length = message.read_header(data + self._exactly(size - len(data)))
            found = Message(request, needs_reply, self._exactly(length), tuple(descriptors))
        except BaseException:
            close_all(descriptors)
            raise
        return found

    def _exactly(self, length: int) -> bytes:
        found = b""
        while len(found) < length:
            part = self._socket.recv(length - len(found))
            if not part:
                raise NetworkError("the front end ended within a message")
            found += part
        return found

    def _reply(self, request: int, payload: bytes, descriptors: Sequence[int] = ()) -> None:
        self._socket.settimeout(_TIMEOUT)
        data = message.reply(request, payload)
        sent = socket.send_fds(self._socket, [data], descriptors) if descriptors else 0
        self._socket.sendall(data[sent:])

    def _handle(self, received: Message) -> None:
        """Do what a message says, and answer it."""
        if received.request == Request.GET_INFLIGHT_FD:
            self._get_inflight_fd(received)
            return
        getter = _GETTERS.get(received.request)
        if getter is not None:
            self._reply(received.request, getter(self, received))
            return
        setter = _SETTERS.get(received.request)
        acknowledges = received.needs_reply and bool(self._protocol_features & ProtocolFeature.REPLY_ACK)
        try:
            if setter is None:
                raise RemoteProtocolError(f"{message.name(received.request)} is not supported")
            setter(self, received)
        except (RemoteProtocolError, NetworkError):
            if acknowledges:
                self._reply(received.request, message.U64.pack(1))
            raise
        if acknowledges:
            self._reply(received.request, message.U64.pack(0))

    # What asks.

    def _get_features(self, received: Message) -> bytes:
        return message.U64.pack(self._device.features() | message.PROTOCOL_FEATURES)

    def _get_protocol_features(self, received: Message) -> bytes:
        return message.U64.pack(_PROTOCOL_FEATURES)

    def _get_queue_num(self, received: Message) -> bytes:
        return message.U64.pack(len(self._queues))

    def _get_max_mem_slots(self, received: Message) -> bytes:
        return message.U64.pack(MAX_REGIONS)

    def _get_vring_base(self, received: Message) -> bytes:
        state = received.state()
        state.number = self._queue(state.index).stop()
        if not any(queue.is_running for queue in self._queues):
            self._device.rest()
        return state.pack()

    def _get_config(self, received: Message) -> bytes:
        head, _ = received.config()
        space = self._device.config().ljust(message.MAX_CONFIG, b"\0")
        if head.offset + head.size > message.MAX_CONFIG:
            return ConfigSpace(offset=head.offset, size=0, flags=0).pack()
        return head.pack() + space[head.offset : head.offset + head.size]

    def _get_inflight_fd(self, received: Message) -> None:
        asked = received.inflight()
        fd, made = unflushed.create(len(self._queues), asked.queue_size)
        try:
            self._reply(received.request, made.pack().ljust(len(received.payload), b"\0"), [fd])
        finally:
            os.close(fd)

    # What sets.

    def _set_features(self, received: Message) -> None:
        features = received.u64()
        if unknown := features & ~(self._device.features() | message.PROTOCOL_FEATURES):
            raise RemoteProtocolError(f"features {unknown:#x} were not offered")
        self._features = features
        self._device.use_features(features)
        if not features & message.PROTOCOL_FEATURES:
            for queue in self._queues:
                queue.enable(True)

    def _set_protocol_features(self, received: Message) -> None:
        features = received.u64()
        if unknown := features & ~_PROTOCOL_FEATURES:
            raise RemoteProtocolError(f"protocol features {unknown:#x} were not offered")
        self._protocol_features = features

    def _nothing(self, received: Message) -> None:
        """What changes nothing here: who owns the device is who is connected."""

    def _set_mem_table(self, received: Message) -> None:
        self._change_memory(lambda: self._shared.replace(received.regions(), received.descriptors))

    def _add_mem_reg(self, received: Message) -> None:
        if len(received.descriptors) != 1:
            raise RemoteProtocolError("a memory region comes without its descriptor")
        self._change_memory(lambda: self._shared.add(received.region(), received.descriptors[0]))

    def _rem_mem_reg(self, received: Message) -> None:
        self._change_memory(lambda: self._shared.remove(received.region()))

    def _change_memory(self, change: Callable[[], GuestMemory]) -> None:
        for queue in self._queues:
            queue.pause()
        self._memory = change()
        self._run_queues()

    def _set_vring_num(self, received: Message) -> None:
        state = received.state()
        self._queue(state.index).set_size(state.number)

    def _set_vring_addr(self, received: Message) -> None:
        found = received.address()
        self._queue(found.index).set_addresses(Addresses(found.descriptors, found.available, found.used))

    def _set_vring_base(self, received: Message) -> None:
        state = received.state()
        self._queue(state.index).set_base(state.number)

    def _set_vring_kick(self, received: Message) -> None:
        queue, fd = self._event(received)
        queue.set_kick(fd)
        self._run_queues()

    def _set_vring_call(self, received: Message) -> None:
        queue, fd = self._event(received)
        queue.set_call(fd)

    def _set_vring_err(self, received: Message) -> None:
        queue, fd = self._event(received)
        queue.set_error(fd)

    def _set_vring_enable(self, received: Message) -> None:
        state = received.state()
        self._queue(state.index).enable(bool(state.number))
        self._run_queues()

    def _set_config(self, received: Message) -> None:
        head, data = received.config()
        if head.flags != _FLAG_OF_DRIVER or not self._device.set_config(head.offset, data):
            raise RemoteProtocolError(f"{len(data)} bytes at {head.offset} of the configuration cannot be changed")

    def _set_inflight_fd(self, received: Message) -> None:
        described = received.inflight()
        if len(received.descriptors) != 1:
            raise RemoteProtocolError(f"{message.name(received.request)} comes without its descriptor")
        if self._device.unflushed.keep(os.dup(received.descriptors[0]), described):
            self._report(
                "vhost-user-blk: who served this guest before ended with writes that were not flushed: they may be "
                "gone, and no flush succeeds before the guest resets the disk"
            )

    def _set_backend_req_fd(self, received: Message) -> None:
        if len(received.descriptors) != 1:
            raise RemoteProtocolError("the channel for our requests comes without its descriptor")
        fd = os.dup(received.descriptors[0])
        try:
            channel = socket.socket(fileno=fd)
        except OSError as error:
            os.close(fd)
            raise RemoteProtocolError(f"the channel for our requests is no socket: {error.strerror}") from None
        channel.setblocking(False)
        self._use_channel(channel)

    def _reset_device(self, received: Message) -> None:
        for queue in self._queues:
            queue.reset()
        self._device.settle()

    def _run_queues(self) -> None:
        for queue in self._queues:
            queue.run(
                self._memory,
                event_index=bool(self._features & Feature.EVENT_IDX),
                indirect=bool(self._features & Feature.INDIRECT_DESC),
            )

    def _queue(self, index: int) -> Queue:
        if index >= len(self._queues):
            raise RemoteProtocolError(f"there is no queue {index}")
        return self._queues[index]

    def _event(self, received: Message) -> tuple[Queue, int]:
        """The queue that an eventfd is for, and the eventfd as our own; -1 where there is none."""
        number = received.u64()
        queue = self._queue(number & message.VRING_MASK)
        if number & message.NO_DESCRIPTOR:
            return queue, -1
        if len(received.descriptors) != 1:
            raise RemoteProtocolError(f"{message.name(received.request)} comes without its descriptor")
        fd = os.dup(received.descriptors[0])
        os.set_blocking(fd, False)
        return queue, fd


_GETTERS: Final[Mapping[int, Callable[[Connection, Message], bytes]]] = {
    Request.GET_FEATURES: Connection._get_features,
    Request.GET_PROTOCOL_FEATURES: Connection._get_protocol_features,
    Request.GET_QUEUE_NUM: Connection._get_queue_num,
    Request.GET_MAX_MEM_SLOTS: Connection._get_max_mem_slots,
    Request.GET_VRING_BASE: Connection._get_vring_base,
    Request.GET_CONFIG: Connection._get_config,
}
_SETTERS: Final[Mapping[int, Callable[[Connection, Message], None]]] = {
    Request.SET_FEATURES: Connection._set_features,
    Request.SET_PROTOCOL_FEATURES: Connection._set_protocol_features,
    Request.SET_OWNER: Connection._nothing,
    Request.RESET_OWNER: Connection._nothing,
    Request.SET_MEM_TABLE: Connection._set_mem_table,
    Request.ADD_MEM_REG: Connection._add_mem_reg,
    Request.REM_MEM_REG: Connection._rem_mem_reg,
    Request.SET_VRING_NUM: Connection._set_vring_num,
    Request.SET_VRING_ADDR: Connection._set_vring_addr,
    Request.SET_VRING_BASE: Connection._set_vring_base,
    Request.SET_VRING_KICK: Connection._set_vring_kick,
    Request.SET_VRING_CALL: Connection._set_vring_call,
    Request.SET_VRING_ERR: Connection._set_vring_err,
    Request.SET_VRING_ENABLE: Connection._set_vring_enable,
    Request.SET_CONFIG: Connection._set_config,
    Request.SET_INFLIGHT_FD: Connection._set_inflight_fd,
    Request.SET_BACKEND_REQ_FD: Connection._set_backend_req_fd,
    Request.RESET_DEVICE: Connection._reset_device,
}
