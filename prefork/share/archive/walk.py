"""A folder and all below it, in a fixed order, as a plan.

A worker, in a thread of its pool: it takes about 10 µs for each entry. All is opened
through the jail, and looked at by the descriptor of its folder. It reads no file.

Files come before folders, each sorted by name, so that a folder's own are together.
Left out without a word is what the share does not show: hidden names, devices, sockets,
links that lead to nothing that it shows. What it shows and cannot read is named in a
last entry, "NOT INCLUDED.txt"; so is a link that would lead round in a circle.
"""

import os
import stat
from typing import Final, NamedTuple

from prefork.share.archive.arcnames import arc_name, is_fit, top_name, unique
from prefork.share.archive.plan import Plan
from prefork.share.jail import ForbiddenError, Jail, MissingError, Opened, is_passing

#: An entry costs about 100 bytes of memory: some 200 MB.
_MOST_ENTRIES: Final = 2_000_000
#: A zip's own bound is 65,535 bytes, with the folder's name before it; most systems stop at 4,096.
_MOST_PATH_BYTES: Final = 32_768
_NOTE_NAME: Final = "NOT INCLUDED.txt"
_NOTE_HEAD: Final = "These are in the folder, but not in this archive:\r\n\r\n"


class TooManyError(OSError):
    """A folder has more entries than one archive may have."""


class _Above(NamedTuple):
    """A folder and those that it stands in, up to the archive's own."""

    next: "_Above | None"
    inode: tuple[int, int]


class _Place(NamedTuple):
    """A folder that is still to be walked.

    path, fit_path: below the archive's folder; fit_path is None where it is the same.
    above: itself and the folders that it stands in, to find circles.
    is_beneath_link: a link leads to it, or to a folder that it stands in.
    """

    parts: tuple[str, ...]
    path: bytes
    fit_path: bytes | None
    above: _Above
    is_beneath_link: bool


class _Walk:
    """One walk: `plan` is what it has found."""

    def __init__(self, jail: Jail, name: str) -> None:
        self.plan = Plan(top_name(name))
        self._jail = jail
        self._note_name = _NOTE_NAME
        self._left_out: list[str] = []
        self._entered: set[tuple[int, int]] = set()
        self._todo: list[_Place] = []

    def run(self, folder: Opened) -> None:
        """Walk a folder.

        Raises: TooManyError; OSError where the system is short of something.
        """
        above = _Above(None, (folder.status.st_dev, folder.status.st_ino))
        self._folder(folder, _Place(folder.parts, b"", None, above, False))
        while self._todo:
            place = self._todo.pop()
            try:
                opened = self._jail.open(place.parts)
            except MissingError:
                continue  # it has gone since its folder was read
            except OSError as error:
                self._leave_out(place.fit_path or place.path, error)
                continue
            if stat.S_ISDIR(opened.status.st_mode):
                self._folder(opened, place)
        if self._left_out:
            lines = "\r\n".join(self._left_out)
            text = f"{_NOTE_HEAD}{lines}\r\n".encode()
            self.plan.add_note(os.fsencode(self._note_name), text)

    def _folder(self, opened: Opened, place: _Place) -> None:
        try:
            found = os.listdir(opened.file.fd)  # noqa: PTH208 # by descriptor
            names = sorted(filter(self._jail.is_shown, found))
        except OSError as error:
            self._leave_out(place.fit_path or place.path, error)
            return
        self._add(place.path, place.fit_path, opened.status)
        fit = _fit_names(names)
        if not place.path:
            self._note_name = unique(_NOTE_NAME, {*names, *fit.values()})
        stem = place.path + b"/" if place.path else b""
        fit_stem = place.fit_path + b"/" if place.fit_path else None
        folders: list[_Place] = []
        for name in names:
            path = stem + os.fsencode(name)
            fit_path = None
            if fit_stem is not None or name in fit:
                fit_path = (stem if fit_stem is None else fit_stem) + fit.get(name, name).encode()
            below = place._replace(parts=(*place.parts, name), path=path, fit_path=fit_path)
            child = self._child(opened, name, below)
            if child is not None:
                folders.append(child)
        self._todo += reversed(folders)

    def _child(self, folder: Opened, name: str, place: _Place) -> _Place | None:
        """Add a file; return the place of a folder."""
        if len(place.fit_path or place.path) > _MOST_PATH_BYTES:
            self._leave_out(place.fit_path or place.path, "its path is too long")
            return None
        try:
            status = os.stat(name, dir_fd=folder.file.fd, follow_symlinks=False)
            is_link = stat.S_ISLNK(status.st_mode)
            if is_link:
                status = self._jail.open_child(folder, name).status
            if stat.S_ISDIR(status.st_mode):
                return self._deeper(place, status, is_link)
            if not stat.S_ISREG(status.st_mode):
                return None
            if is_link or os.access(name, os.R_OK, dir_fd=folder.file.fd, effective_ids=True):
                self._add(place.path, place.fit_path, status)
                return None
            self._leave_out(place.fit_path or place.path, ForbiddenError())
        except (MissingError, FileNotFoundError):
            return None  # it leads nowhere, or has gone
        except TooManyError:
            raise
        except OSError as error:
            self._leave_out(place.fit_path or place.path, error)
        return None

    def _deeper(self, place: _Place, status: os.stat_result, is_link: bool) -> _Place | None:
        """Return a folder's place below; None if a link to it leads in a circle.

        Beneath links, each folder is entered by one more link only: with twenty folders that
        have links to each other, there are more ways through them than an archive can hold.
        """
        inode = (status.st_dev, status.st_ino)
        if is_link:
            if _is_above(place.above, inode) or (place.is_beneath_link and inode in self._entered):
                self._leave_out(place.fit_path or place.path, "a link in a circle")
                return None
            if place.is_beneath_link:
                self._entered.add(inode)
        return place._replace(
            above=_Above(place.above, inode), is_beneath_link=place.is_beneath_link or is_link
        )

    def _add(self, path: bytes, fit_path: bytes | None, status: os.stat_result) -> None:
        if len(self.plan) >= _MOST_ENTRIES:
            raise TooManyError(f"This folder has more than {_MOST_ENTRIES} files")
        self.plan.add(path, fit_path, status)

    def _leave_out(self, path: bytes, error: OSError | str) -> None:
        if isinstance(error, OSError) and is_passing(error):
            raise error  # the next archive would have what this one has not
        reason = _reason(error) if isinstance(error, OSError) else error
        if len(self._left_out) >= _MOST_ENTRIES:
            raise TooManyError(f"This folder has more than {_MOST_ENTRIES} unreadable files")
        self._left_out.append(f"{path.decode('utf-8', 'replace')} ({reason})")


def plan_of(jail: Jail, folder: Opened, name: str) -> Plan:
    """Return the plan of an archive of a folder.

    name: of the folder that all entries stand below.
    Raises: TooManyError; OSError where the system is short of something.
    """
    walk = _Walk(jail, name)
    walk.run(folder)
    return walk.plan


def _fit_names(names: list[str]) -> dict[str, str]:
    """Return other names for those that are not fit; no two are the same."""
    unfit = [name for name in names if not is_fit(name)]
    if not unfit:
        return {}
    taken = set(names)
    fit = {}
    for name in unfit:
        fit[name] = unique(arc_name(name), taken)
        taken.add(fit[name])
    return fit


def _is_above(above: _Above | None, inode: tuple[int, int]) -> bool:
    while above is not None:
        if above.inode == inode:
            return True
        above = above.next
    return False


def _reason(error: OSError) -> str:
    if isinstance(error, ForbiddenError):
        return "no permission"
    return (error.strerror or str(error) or type(error).__name__).lower()
