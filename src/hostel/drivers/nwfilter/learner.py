"""The process that finds out the addresses of one guest's interface.

``any``: the first address that it sends from, or is given by DHCP; then it ends. ``dhcp``: those that it is given by
DHCP, for as long as they are its own; it ends with the interface.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hostel.drivers.nwfilter.bindings import Bindings
from hostel.drivers.nwfilter.learning import FOREVER, lease, source_address
from hostel.drivers.nwfilter.system import SystemNwfilterDriver
from hostel.drivers.store import Directories, take_lock
from hostel.errors import HostelError
from hostel.model.nwfilter.binding import FilterBinding

_OUTGOING: Final = 4  # PACKET_OUTGOING: from the host to the guest
_LONGEST: Final = 2048  # bytes of a frame that are looked at
_LOOK: Final = 1.0  # seconds between two looks at whether anybody wants to know
_PAUSE: Final = 1.0  # seconds at least between two changes of the rules
_MOST: Final = 64  # addresses of one interface


class Learner:
    """One interface's."""

    def __init__(self, directories: Directories, name: str, mark: str) -> None:
        self._bindings = Bindings(directories)
        self._driver = SystemNwfilterDriver(directories)
        self._name = name
        self._mark = mark
        self._is_any = mark.startswith("any ")
        self._known: dict[str, float] = self._bindings.addresses(name)
        self._changed = 0.0

    def run(self, binding: FilterBinding, listening: socket.socket) -> None:
        """Listen until all is known that is wanted, or nobody wants to know."""
        mac = bytes.fromhex((binding.mac or "").replace(":", ""))
        index = socket.if_nametoindex(self._name)
        while self._is_wanted(index):
            ready, _, _ = select.select([listening], [], [], self._patience())
            if ready:
                try:
                    frame, (_, _, kind, *_) = listening.recvfrom(_LONGEST)
                except OSError as error:
                    if error.errno != errno.ENETDOWN:
                        raise
                    continue  # it is not up yet, or not now
                if self._heard(frame, mac, to_guest=kind == _OUTGOING):
                    return
            # A guest that never stops asking keeps nothing for longer.
            if self._forget_old():
                return

    def _is_wanted(self, index: int) -> bool:
        try:
            return socket.if_nametoindex(self._name) == index and self._bindings.learning(self._name) == self._mark
        except OSError:
            return False

    def _patience(self) -> float:
        return max(0.0, min(_LOOK, *(until - time.time() for until in self._known.values())) if self._known else _LOOK)

    def _heard(self, frame: bytes, mac: bytes, *, to_guest: bool) -> bool:
        """Whether nothing else is to be found out after a frame."""
        found = lease(frame, mac, to_guest=to_guest)
        if self._is_any:
            address = None if to_guest else source_address(frame, mac)
            if address is None and found is not None and found.seconds:
                address = found.address
            return address is not None and self._tell({address: FOREVER}, done=True)
        if found is None:
            return False
        now = {address: until for address, until in self._known.items() if address != found.address}
        if found.seconds and len(now) < _MOST:
            now[found.address] = time.time() + found.seconds
        elif found.address not in self._known:
            return False
        return self._tell(now)

    def _forget_old(self) -> bool:
        now = {address: until for address, until in self._known.items() if until > time.time()}
        return now != self._known and self._tell(now)

    def _tell(self, addresses: dict[str, float], *, done: bool = False) -> bool:
        """Have rules for the addresses; whether to end."""
        changed = set(addresses) != set(self._known)
        if changed:
            # However often a guest gets and gives back addresses, rules are made for others meanwhile.
            time.sleep(max(0.0, self._changed + _PAUSE - time.monotonic()))
        is_wanted = self._driver.learned(self._name, self._mark, addresses, changed=changed, done=done)
        self._known, self._changed = addresses, time.monotonic() if changed else self._changed
        return done or not is_wanted


def main(words: Sequence[str]) -> int:
    """Find out the addresses of an interface: four directories, its name, the mark, and the socket to listen on."""
    directories, (name, mark, number) = Directories(*map(Path, words[:4])), words[4:]
    bindings = Bindings(directories)
    lock = take_lock(bindings.lock_of_learner(name))
    if lock is None:
        return 0  # another one listens
    try:
        binding = bindings.find(name)
        with socket.socket(fileno=int(number)) as listening:
            if binding is not None:
                Learner(directories, name, mark).run(binding, listening)
    except (OSError, HostelError) as error:
        sys.stderr.write(f"{time.strftime('%F %T')} {name}: {error}\n")
        return 1
    finally:
        os.close(lock)
    return 0
