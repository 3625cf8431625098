"""A folder over WebDAV by WsgiDAV, whose locks and properties all workers know.

Its own storages live in the memory of one process, or in a `shelve`, which one process may have
open. These are its storages in memory, read from a file before each call and written to it after.
"""

import fcntl
import functools
import os
import pickle
import threading
from contextlib import contextmanager
from pathlib import Path

from wsgidav.lock_man.lock_storage import LockStorageDict
from wsgidav.prop_man.property_manager import PropertyManager
from wsgidav.wsgidav_app import WsgiDAVApp

FOLDER = Path(os.environ["SITES"])


class Shared:
    """A dictionary in a file, for one thread of one process at a time."""

    def __init__(self, path: Path):
        self._path = path
        self._mine = threading.RLock()
        self._depth = 0

    @contextmanager
    def taken(self, owner):
        """Have `owner._dict` be what the file says, and the file be what it is afterwards."""
        with self._mine, self._path.open("ab+") as file:
            if self._depth:  # a method of the storage that calls another
                yield
                return
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            before = file.read()
            owner._dict = pickle.loads(before) if before else {}
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                after = pickle.dumps(owner._dict)
                if after != before:
                    file.truncate(0)
                    file.write(after)


def shared(base, *names):
    """Return a class derived from a storage, whose methods of these names use the file."""

    def through_file(name):
        method = getattr(base, name)

        @functools.wraps(method)
        def call(self, *args, **kwargs):
            with self._shared.taken(self):
                return method(self, *args, **kwargs)

        return call

    def begin(self, path: Path):
        self._shared = Shared(path)
        base.__init__(self)

    own = {name: through_file(name) for name in names}
    return type(f"Shared{base.__name__}", (base,), {"__init__": begin, **own})


SharedLocks = shared(
    LockStorageDict, "clear", "get", "create", "refresh", "delete", "get_lock_list"
)
SharedProperties = shared(
    PropertyManager,
    "get_properties",
    "get_property",
    "write_property",
    "remove_property",
    "remove_properties",
    "copy_properties",
    "move_properties",
)


def create_application():
    """Return the application; its log is left to the program."""
    share = FOLDER / "dav"
    for name in ("inline", "threads", "peer"):
        (share / name).mkdir(parents=True, exist_ok=True)
    config = {
        "provider_mapping": {"/": {"root": str(share)}},
        # Not by digest: WsgiDAV keeps what it has challenged with in one process.
        "http_authenticator": {"accept_digest": False, "default_to_digest": False},
        "simple_dc": {"user_mapping": {"*": {"ada": {"password": "secret"}}}},
        "lock_storage": SharedLocks(FOLDER / "locks"),
        "property_manager": SharedProperties(FOLDER / "properties"),
        "logging": {"enable": False},
        "verbose": 1,
    }
    return WsgiDAVApp(config)
