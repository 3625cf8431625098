"""A folder as a zip or a tar that can be asked for in parts, and is the same in all of them.

A worker, in a thread of its pool. It knows nothing of requests.

Programs that fetch a file in pieces ask sixteen times a second: a plan is kept for a
moment, so that they meet the same one, and the folder is walked once. Who asks for all of it
begins anew, and gets a newer one sooner: it shall have what was put there before. If something
has changed, the ETag is another one; if it changes after that, the connection breaks.
"""

import threading
import time
from typing import Final

from prefork.http.representation import Representation
from prefork.share.archive.crcs import Crcs
from prefork.share.archive.identity import identity_of
from prefork.share.archive.plan import Plan
from prefork.share.archive.stream import Stream
from prefork.share.archive.tar import Tar
from prefork.share.archive.walk import plan_of
from prefork.share.archive.zip import Zip
from prefork.share.jail import Jail, Opened

#: Of the bytes' form: with another one, no download of before goes on.
_FORM: Final = 1
#: How long a plan is kept, in seconds: so long, or what it took to make; for parts so many
#: times that, up to a bound. A folder of 100,000 files takes a second.
_LEAST_S: Final = 2.0
_TIMES: Final = 10
_MOST_S: Final = 30.0
#: Plans that are kept, and their entries, of 100 bytes each; the last one always.
_MOST_PLANS: Final = 8
_MOST_ENTRIES: Final = 300_000


class _Slot:
    """A folder's place for its plan; walking: held while it is made."""

    def __init__(self) -> None:
        self.walking = threading.Lock()
        self.plan: Plan | None = None
        self.layouts: dict[type[Zip | Tar], tuple[Zip | Tar, str]] = {}
        self.identity: object = None
        self.valid_until_s = 0.0
        self.fresh_until_s = 0.0

    def forget(self) -> None:
        """Have the next one who asks walk the folder again."""
        self.valid_until_s = self.fresh_until_s = 0.0


class Archives:
    """Of the folders in a jail. crcs: of their files."""

    def __init__(self, jail: Jail, crcs: Crcs) -> None:
        self._jail = jail
        self._crcs = crcs
        self._lock = threading.Lock()
        self._slots: dict[tuple[tuple[str, ...], str], _Slot] = {}

    def zip_of(self, folder: Opened, name: str, *, is_part: bool = False) -> Representation:
        """Return a folder as a zip.

        name: of the folder that is unpacked; where it is not fit for one, another.
        is_part: ranges of it are asked for, of what may have been begun some time ago.
        Raises: OSError; TooManyError for a folder that no archive can hold.
        """
        return self._archive_of(folder, name, Zip, is_part)

    def tar_of(self, folder: Opened, name: str, *, is_part: bool = False) -> Representation:
        """Return a folder as a tar. See `zip_of()`."""
        return self._archive_of(folder, name, Tar, is_part)

    def _archive_of(
        self, folder: Opened, name: str, kind: type[Zip | Tar], is_part: bool
    ) -> Representation:
        self._crcs.open()
        slot = self._slot(folder, name)
        with slot.walking:
            plan = self._plan(slot, folder, name, is_part)
            if kind not in slot.layouts:
                made = kind(plan)
                slot.layouts[kind] = made, _etag_of(plan, made)
            layout, etag = slot.layouts[kind]
        stream = Stream(self._jail, folder.parts, plan, layout, self._crcs, slot.forget)
        headers = (("Content-Type", kind.content_type),)
        # No Last-Modified: a file may be taken away, and the newest that is left be older.
        return Representation(headers, layout.size, etag, None, stream.pieces)

    def _plan(self, slot: _Slot, folder: Opened, name: str, is_part: bool) -> Plan:
        now_s = time.monotonic()
        until_s = slot.valid_until_s if is_part else slot.fresh_until_s
        identity = identity_of(folder.status)
        if slot.plan is None or now_s > until_s or slot.identity != identity:
            slot.plan = None
            slot.layouts = {}
            slot.plan = plan_of(self._jail, folder, name)
            slot.identity = identity
            done_s = time.monotonic()
            took_s = done_s - now_s
            slot.fresh_until_s = done_s + min(max(_LEAST_S, took_s), _MOST_S)
            slot.valid_until_s = done_s + min(max(_LEAST_S, took_s * _TIMES), _MOST_S)
        return slot.plan

    def _slot(self, folder: Opened, name: str) -> _Slot:
        """Return a folder's slot, the newest of all; drop those that are out of date or too many.

        Who has one that is dropped goes on with it.
        """
        now_s = time.monotonic()
        with self._lock:
            slot = self._slots.pop((folder.parts, name), None) or _Slot()
            entries = 0
            for key, other in reversed(list(self._slots.items())):
                entries += 0 if other.plan is None else len(other.plan)
                is_old = now_s > other.valid_until_s and not other.walking.locked()
                if is_old or entries > _MOST_ENTRIES or len(self._slots) >= _MOST_PLANS:
                    del self._slots[key]
            self._slots[folder.parts, name] = slot
        return slot


def _etag_of(plan: Plan, layout: Zip | Tar) -> str:
    """Return a strong ETag of an archive's bytes."""
    return f'"{layout.suffix[1:]}{_FORM}-{plan.digest(layout.digest()).hex()}"'
