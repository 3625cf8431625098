"""Tells whether a program's code waits for the end of a handler, to do something after it.

A worker, in the thread of the handler, once for each client. An `__init__()` or a
`finish_request()` may close a database or leave a lock when the stdlib's has
returned, which for the stdlib is when the client has gone. It never runs anything.
"""

import dis
import functools
import socketserver
import sys
from types import CodeType, FrameType
from typing import Final

_FIRST: Final = socketserver.BaseRequestHandler.__init__.__code__
_LAST: Final = socketserver.BaseServer.finish_request.__code__
_ENDS: Final = frozenset({"RETURN_VALUE", "RETURN_CONST"})
# What leads to a plain return, in 3.11 to 3.15; an instruction not known is something to do.
_CONSTANTS: Final = frozenset({"LOAD_CONST", "LOAD_COMMON_CONSTANT", "LOAD_SMALL_INT"})
_NOTHING: Final = frozenset({"POP_TOP", "NOP", "CACHE"}) | _CONSTANTS | _ENDS
#: Frames from `handle()` up to the server's hook: a few classes' `__init__`.
_MOST: Final = 32


def is_awaited(engine_code: CodeType) -> bool:
    """Tell whether a caller, up to engine_code, has more to do than to return.

    To be called by `handle()`.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not _FIRST:
        frame = frame.f_back  # a program's own handle() around ours has been looked at before
    for _ in range(_MOST):
        frame = None if frame is None else frame.f_back
        if frame is None or frame.f_code is engine_code:
            return False
        if frame.f_code is not _LAST and not _only_returns(frame.f_code, frame.f_lasti):
            return True
    return True


@functools.lru_cache(maxsize=256)
def _only_returns(code: CodeType, after: int) -> bool:
    for instruction in dis.get_instructions(code):
        if instruction.offset <= after:
            continue
        if instruction.opname not in _NOTHING:
            return False
        if instruction.opname in _ENDS:
            return True
    return False
