"""What is said on the control socket: one JSON object in one line each way.

The master and the commands that speak to it. It opens nothing and sends
nothing.

A request is `{"command": "scale", "pool": "web", "workers": 4}`. The answer is
`{"ok": true, ...}` or `{"ok": false, "reason": "..."}`, and ends the
conversation, except after `stop`: there the end of the conversation is the end
of the master.
"""

import json
from typing import Annotated, Any, Final, TypedDict

import msgspec

from prefork.errors import PreforkError
from prefork.scoreboard import CAPACITY

#: Of a request, its newline included. The longest that can be meant has a pool's name in it.
LINE_BYTES: Final = 65536

#: A client has this long to send its request, and to take its answer.
PATIENCE_S: Final = 10.0

_Slot = Annotated[int, msgspec.Meta(ge=0, lt=CAPACITY)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=CAPACITY)]


class ProtocolError(PreforkError):
    """What came is no request, or no answer, of this version."""


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="command"):
    """What a client wants."""


class Status(_Request, frozen=True, tag="status"):
    """Tell how things are."""


class Reload(_Request, frozen=True, tag="reload"):
    """Take the new config, handlers and prefork itself; done when they serve."""


class Stop(_Request, frozen=True, tag="stop"):
    """End. now: without waiting for what is in hand."""

    now: bool = False


class Scale(_Request, frozen=True, tag="scale"):
    """Have this many workers in a pool; done when they serve."""

    pool: str
    workers: _Count


class ReopenLogs(_Request, frozen=True, tag="reopen-logs"):
    """Open the log files again, by name; done when every process writes to the new ones."""


class KillWorker(_Request, frozen=True, tag="kill-worker"):
    """End the worker of a slot at once; done when it has ended."""

    slot: _Slot


Request = Status | Reload | Stop | Scale | ReopenLogs | KillWorker


class WorkerStatus(TypedDict):
    """One worker. busy: requests in hand. request: the oldest of these, as a person reads it."""

    slot: int
    pid: int
    generation: int
    state: str
    age_s: float
    requests: int
    bytes: int
    busy: int
    request: str | None
    request_age_s: float | None
    memory_bytes: int


class PoolStatus(TypedDict):
    """One pool. at: its addresses, as they are typed. wanted: how many workers it shall have."""

    name: str
    at: list[str]
    wanted: int
    workers: list[WorkerStatus]


class MasterStatus(TypedDict):
    """All there is to know.

    started_s: Unix time. state: serving, reloading, stopping or degraded.
    reason: what someone should look at, such as why the last reload failed; None: nothing.
    """

    version: str
    pid: int
    config: str
    generation: int
    started_s: float
    state: str
    reason: str | None
    pools: list[PoolStatus]


def encode_request(request: Request) -> bytes:
    """Return the request as a line."""
    return _line(msgspec.to_builtins(request))


def encode_answer(reason: str | None = None, **fields: object) -> bytes:
    """Return an answer as a line: a refusal if there is a reason, else success with fields."""
    return _line({"ok": True, **fields} if reason is None else {"ok": False, "reason": reason})


def decode_request(line: str | bytes) -> Request:
    """Return what a line asks for.

    Raises: ProtocolError.
    """
    try:
        request: Request = msgspec.convert(_parse(line), Request)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"bad request: {error}") from None
    except (ValueError, RecursionError):
        raise ProtocolError("bad request: not one JSON object in one line of UTF-8") from None
    return request


def decode_answer(line: str | bytes) -> dict[str, Any]:
    """Return an answer's fields.

    Raises: ProtocolError.
    """
    try:
        answer = _parse(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        raise ProtocolError("the answer is not one of a prefork master")
    return answer


def decode_status(answer: dict[str, Any]) -> MasterStatus:
    """Return the status in an answer; fields that this version does not know are left out.

    Raises: ProtocolError.
    """
    try:
        return msgspec.convert(answer.get("status"), MasterStatus)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"the master is of another version ({error}); --json shows") from None


def _line(fields: object) -> bytes:
    # json, not msgspec: names of files may hold bytes that are no text (PEP 383), and stay so.
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _parse(line: str | bytes) -> object:
    return json.loads(line.decode() if isinstance(line, bytes) else line)
