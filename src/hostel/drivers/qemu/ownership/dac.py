"""Owners as what is written on files: libvirt's driver "dac"."""

from __future__ import annotations

import errno
import os
from typing import Final

from hostel.drivers.qemu.ownership.claims import Terms
from hostel.drivers.qemu.ownership.label import DAC, label_of
from hostel.drivers.qemu.ownership.user import ROOT, Identity, Owner, read_label
from hostel.model.domain.domain import Domain

_PASSED: Final = (errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EROFS)


class OwnerMark:
    """A user and a group, as ``+64055:+64055``; see :class:`hostel.drivers.qemu.ownership.remembered.Mark`."""

    model: Final = DAC

    def read(self, path: str) -> str:
        """Whose it is."""
        status = os.stat(path)
        return Owner(status.st_uid, status.st_gid).label

    def write(self, path: str, value: str) -> None:
        """Change whose it is."""
        os.chown(path, *_owner(value))

    def normal(self, value: str) -> str:
        """With plus signs, which libvirt has not always written."""
        return _owner(value).label

    def usual(self, path: str, mode: int) -> str:
        """Root's."""
        return ROOT.label

    def passes(self, error: OSError) -> bool:
        """As ``virSecurityDACSetOwnershipInternal`` has it."""
        return error.errno in _PASSED

    def clash(self, path: str) -> str:
        """In libvirt's words."""
        return f"Setting different DAC user or group on {path} which is already in use"

    def refusal(self, path: str, value: str) -> str:
        """In libvirt's words."""
        owner = _owner(value)
        return f"unable to set user and group to '{owner.uid}:{owner.gid}' on '{path}'"


MARK: Final = OwnerMark()


def _owner(value: str) -> Owner:
    user, _, group = value.partition(":")
    return Owner(int(user.removeprefix("+")), int(group.removeprefix("+")))


def terms(domain: Domain, identity: Identity) -> Terms:
    """How a machine is given files that are to be its user's.

    Raises:
        VirtError: ``INVALID_ARG``: its label names nobody.
    """
    label = label_of(domain)
    owner = identity.owner if label is None or label.label is None else read_label(label.label)
    gives = identity.gives and (label is None or bool(label.relabel))
    return Terms(DAC, owner.label, owner.label, owner.label, lambda text: read_label(text).label, gives)
