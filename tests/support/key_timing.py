"""Real tools that make LUKS key slots, on a machine that does other work too.

QEMU 7.2 times the derivation of a key by the processor time of its thread, and gives up with one message where the
kernel, on a busy machine, has not counted any: that says nothing of what a test asks, so it is asked again.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

_UNTIMED: Final = "Unable to get accurate CPU usage"
_ATTEMPTS: Final = 30

Answer = TypeVar("Answer")


def until_timed(attempt: Callable[[], Answer], complaint: Callable[[Answer], str]) -> Answer:
    """Try until the tool could time itself, or has failed at that many times; any other failure is the answer."""
    answer = attempt()
    for _ in range(_ATTEMPTS - 1):
        if _UNTIMED not in complaint(answer):
            break
        answer = attempt()
    return answer


def run(
    words: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[bytes]:
    """Run a real tool that may make a key slot; however it ends is the caller's to judge."""
    return until_timed(
        lambda: subprocess.run(words, cwd=cwd, env=env, capture_output=True, timeout=timeout, check=False),
        lambda ended: ended.stderr.decode(errors="replace"),
    )
