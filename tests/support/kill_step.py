"""Ending a process with SIGKILL at a chosen step of our own code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

MAX_STEPS = 2000


def killed_at(step: int, files: tuple[Path, ...], action: Callable[[], object], *, may_fail: bool = False) -> bool:
    """Run ``action`` in a child that kills itself before the ``step``-th line that it runs of ``files``.

    Args:
        step: counted from 1.
        files: whose lines count.
        action: what the child does.
        may_fail: whether it may raise, which ends the child quietly.

    Returns:
        Whether it was killed; False when the action was over before.
    """
    child = os.fork()
    if child == 0:
        try:
            sys.settrace(_tracer(step, {str(path) for path in files}))
            action()
            sys.settrace(None)
            os._exit(0)
        except BaseException:
            sys.settrace(None)
            if not may_fail:
                traceback.print_exc()
            os._exit(0 if may_fail else 1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the action failed by itself"
    return False


def _tracer(step: int, names: set[str]) -> Callable[..., Any]:
    left = step

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in names:
            return None
        if event == "line":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace
