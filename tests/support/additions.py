"""What our errors say after the real tools' words, where a test asks for these words alone."""

from __future__ import annotations

import re
from typing import Final

_LINK: Final = r"(?:, where the link '[^']*' leads)?"
_ADDED: Final = re.compile(
    rf"; there is no (?:directory )?'[^']*'{_LINK}"
    rf"|(?<=\n)There is no (?:directory )?'[^']*'{_LINK}\.\n"
    r"|(?<= rtc-reset-reinjection command): domain is not running"
    r"|\n(?:error: )?virsh pool-build \S+ makes the directory"
    r"|(?<= is not active); start it with net-start"
    r"|; install qemu-system-\S+"
    r"|; write (?:hvm|type='qemu' or type='kvm')"
    r"|(?<= support virt type 'kvm'): KVM runs no guest[^\n]*"
)


def without_additions(text: str) -> str:
    """The errors of ours, without what they say of directories that are missing and of networks to be started."""
    return _ADDED.sub("", text)
