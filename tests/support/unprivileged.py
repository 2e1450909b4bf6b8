"""Calls made as a user who may little: root's are never denied."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import TypeVar

from hostel.cause import access, holder

T = TypeVar("T")
NOBODY = 65534
LOADED = (access, holder)  # before a child wants them, who may not be let to where Python is


def as_nobody(call: Callable[[], T]) -> T:
    """What a call answers in a child process of the user ``nobody``; where we are not root, in one of our own."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        answer: object = None
        try:
            os.close(reader)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            answer = call()
        except BaseException as error:
            answer = error
        finally:
            with os.fdopen(writer, "wb") as stream:
                pickle.dump(answer, stream)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    found = pickle.loads(data)
    if isinstance(found, BaseException):
        raise found
    return found  # type: ignore[no-any-return]
