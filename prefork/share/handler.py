"""ShareRequestHandler: a folder to look at and to take files from, by any client there is.

A worker; quick requests in its loop, the others in a thread. The path becomes
names (`names`), the names an open file or folder (`jail`), that a representation
(`files`, `folders`), and preconditions and ranges decide what of it is sent
(`prefork.http.representation`). It opens nothing itself.

It is a SimpleHTTPRequestHandler, whose variables and hooks for heads, logs and
types count here; but `translate_path()`, `send_head()` and `list_directory()`
are not called: a path by its text cannot be kept within a folder.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, ClassVar, Final

from prefork import log
from prefork.http.folder import SimpleHTTPRequestHandler
from prefork.http.handler import DEFAULT_ERROR_MESSAGE
from prefork.http.lazy import CONNECTION
from prefork.http.representation import Representation, answer
from prefork.http.wire import Head
from prefork.share.archive.walk import TooManyError
from prefork.share.errors import error_of
from prefork.share.files import NOSNIFF, Served, represent, usual
from prefork.share.folders import represent_folder, represent_view
from prefork.share.jail import FailedError, ForbiddenError, MissingError, Opened, is_passing
from prefork.share.kept import Kept, answer_kept, key_of, may_keep
from prefork.share.names import asks_folder, href, parts_of
from prefork.share.query import Query
from prefork.share.request import fields_of, wants_page
from prefork.share.sending import ChangedSoonError, cors_of, send
from prefork.share.share import Share, share_of

_METHODS: Final = ("GET", "HEAD", "OPTIONS")
#: Words of a query that ask for the folder itself, though it has an index page.
_OF_FOLDERS: Final = frozenset({"json", "plain", "zip", "tar"})

#: The last character of "." and "%2e".
_DOT_ENDS: Final = ".eE"


class ShareRequestHandler(SimpleHTTPRequestHandler):
    """Serves `directory`, read-only. Its class variables are the options of a config.

    symlinks: "inside", links that lead out of the folder are not there;
    "follow"; "never". hidden: show names that begin with a dot. trusted: the
    folder is a site, whose pages may run scripts. spa: a page that is not there
    is the root's index page; the folder is trusted. not_found_page: a file of
    the folder, sent with 404. archives: folders can be taken as zip and tar.
    compression: siblings that were compressed before, and text. allowed_hosts:
    names, beside those of a LAN, by which clients may call this server; "*" any.
    cors_origins: whose scripts may read what is here; "*" anybody's.
    cache_directory: of checksums; "" the user's own. cache_bytes: how large it
    may become.
    """

    server_version = "prefork"
    sys_version = ""
    allowed_methods: Sequence[str] = _METHODS

    symlinks: ClassVar[str] = "inside"
    hidden: ClassVar[bool] = False
    trusted: ClassVar[bool] = False
    spa: ClassVar[bool] = False
    not_found_page: ClassVar[str] = ""
    archives: ClassVar[bool] = True
    compression: ClassVar[bool] = True
    allowed_hosts: ClassVar[Sequence[str]] = ()
    cors_origins: ClassVar[Sequence[str]] = ()
    cache_directory: ClassVar[str] = ""
    cache_bytes: ClassVar[int] = 64 << 20

    _quick: ClassVar[frozenset[str]] = frozenset({"GET", "HEAD"})

    def __init__(
        self,
        *args: Any,
        directory: str | os.PathLike[str] | None = None,
        extra_response_headers: Iterable[tuple[str, str]] | None = None,
        **kwargs: Any,
    ) -> None:
        # The stdlib's would hide the class's own behind None; here it is an option like the others.
        if extra_response_headers is None:
            extra_response_headers = self.extra_response_headers
        super().__init__(
            *args, directory=directory, extra_response_headers=extra_response_headers, **kwargs
        )

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Leave to threads what a class does by itself: nobody knows how long it takes."""
        super().__init_subclass__(**keywords)
        own = ShareRequestHandler
        same = {"GET": cls.do_GET is own.do_GET, "HEAD": cls.do_HEAD is own.do_HEAD}
        cls._quick = frozenset(method for method, is_ours in same.items() if is_ours)

    @classmethod
    def _prefork_is_quick(cls, head: Head) -> bool:
        """Tell whether the loop may answer: a file. Folders are read and packed by threads."""
        target = head.target
        last = target[-1]
        return (
            head.method in cls._quick
            and last != "/"
            and "?" not in target
            and target[0] == "/"  # else it is absolute, and its path may be empty
            and "#" not in target
            and (last not in _DOT_ENDS or not asks_folder(target))
        )

    def do_GET(self) -> None:  # noqa: N802 # the stdlib's name
        """Send a file, a folder's page, or what the query asks of them."""
        self._respond(body=True)

    def do_HEAD(self) -> None:  # noqa: N802 # the stdlib's name
        """Send the head that GET would have (RFC 9110 §9.3.2)."""
        self._respond(body=False)

    def do_OPTIONS(self) -> None:  # noqa: N802 # as the others
        """Tell what can be done here, also to a page of another origin that asks before."""
        share, fields = share_of(self), fields_of(self)
        if not self._is_welcome(share, fields):
            return
        methods = ", ".join(self.allowed_methods)
        cors = cors_of(share, fields.get("origin"))
        if len(cors) > 1 and "access-control-request-method" in fields:
            cors += [("Access-Control-Allow-Methods", methods)]
            cors += [("Access-Control-Allow-Headers", "*"), ("Access-Control-Max-Age", "600")]
        self.send_response(HTTPStatus.NO_CONTENT)
        for name, value in [("Allow", methods), *cors]:
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send and log an error: a page for a browser, else a line; or the class's own format."""
        if self.error_message_format != DEFAULT_ERROR_MESSAGE:
            super().send_error(code, message, explain)
            return
        short, long = self.responses.get(code, ("", ""))
        message = message or short
        self.log_error("code %d, message %s", code, message)
        fields = fields_of(self)
        as_page = wants_page(fields)
        content_type, headers, body = error_of(code, message, explain or long, page=as_page)
        self.send_response(code, message)
        # A page of another origin that may read files may know that there is none (fetch §4.4).
        cors = cors_of(share_of(self), fields.get("origin")) if self.cors_origins else []
        for name, value in [("Content-Type", content_type), *headers, NOSNIFF, *cors]:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # -- a request, step by step ------------------------------------------------

    def _respond(self, *, body: bool) -> None:
        kept = answer_kept(self, body=body)
        if kept is True:
            return
        fields = fields_of(self)
        if isinstance(kept, Kept) and ("range" not in fields or kept.representation.has_ranges):
            self._send(kept.share, kept.representation, fields)
            return
        share = share_of(self)
        if not self._is_welcome(share, fields):
            return
        try:
            self._look_and_send(share, fields)
        except MissingError:
            self._say_missing(share, fields)
        except OSError as error:
            self._say_failed(error)

    def _look_and_send(self, share: Share, fields: Mapping[str, str]) -> None:
        for is_last in (False, True):
            opened = _open(share, self.path)
            try:
                if share.is_file(opened):
                    self._send_file(share, opened, fields)
                else:
                    self._send_folder(share, opened, fields)
            except ChangedSoonError:
                if is_last:
                    raise
            else:
                return

    def _is_welcome(self, share: Share, fields: Mapping[str, str]) -> bool:
        """Tell whether the client calls this server by a name it has (RFC 9110 §7.4); else say so.

        A page of evil.example whose name leads here would read the LAN's files.
        """
        if share.hosts.allows(fields.get("host")):
            return True
        text = (
            "This server does not know the name by which it was called."
            " If it is one of its own, say so: --allowed-host, or allowed_hosts in a config."
        )
        self.send_error(HTTPStatus.MISDIRECTED_REQUEST, None, text)
        return False

    def _send_file(self, share: Share, opened: Opened, fields: Mapping[str, str]) -> None:
        asked = Query.read(self.path).words if "?" in self.path else frozenset()
        if "view" in asked and "download" not in asked:
            made = represent_view(share, self.path, opened)
            self._send(share, replace(made, headers=(*made.headers, *usual(self))), fields)
            return
        served = represent(share, self, opened, fields, download="download" in asked)
        self._send_served(share, served, fields)

    def _send_served(self, share: Share, served: Served, fields: Mapping[str, str]) -> None:
        """Send a file, and keep it for the next who asks in the same words."""
        self._send(share, served.representation, fields)
        connection = self.__dict__.get(CONNECTION)
        is_plain = "?" not in self.path and served.file is not None and not share.cors_origins
        if is_plain and connection is not None and may_keep(self):
            kept = Kept(share, served, self.extra_response_headers or ())
            connection.engine.files.put(key_of(self, fields), kept)

    def _send_folder(self, share: Share, folder: Opened, fields: Mapping[str, str]) -> None:
        if not asks_folder(self.path):
            self._redirect(share, folder, fields)
            return
        asked = Query.read(self.path)
        if asked.words.isdisjoint(_OF_FOLDERS):
            for name in self.index_pages:
                try:
                    page = share.jail.open_child(folder, name)
                except (MissingError, ForbiddenError):
                    continue
                if share.is_file(page):
                    served = represent(share, self, page, fields, download=False)
                    self._send_served(share, served, fields)
                    return
        made = represent_folder(share, folder, asked, fields)
        self._send(share, replace(made, headers=(*made.headers, *usual(self))), fields)

    def _redirect(self, share: Share, folder: Opened, fields: Mapping[str, str]) -> None:
        """Lead to the folder's own URL, by a name that cannot be taken for a host."""
        _, mark, query = self.path.partition("?")
        location = href(folder.parts[-1], is_folder=True) if folder.parts else "/"
        self.send_response(HTTPStatus.MOVED_PERMANENTLY)
        self.send_header("Location", location + mark + query)
        self.send_header("Content-Length", "0")
        # Browsers would keep it for ever, but a file may come in the folder's place.
        for name, value in [*usual(self), *cors_of(share, fields.get("origin"))]:
            self.send_header(name, value)
        self.end_headers()

    def _say_missing(self, share: Share, fields: Mapping[str, str]) -> None:
        """Send 404; a site has its own page for it, an application one page for everything."""
        parts = parts_of(self.path)
        for status, name in self._pages_instead(share, fields, parts):
            try:
                page = share.jail.open(tuple(word for word in name.split("/") if word))
            except (MissingError, ForbiddenError):
                continue
            if share.is_file(page):
                served = represent(share, self, page, {}, download=False)
                self._send(share, served.representation, fields, status)
                return
        self.send_error(HTTPStatus.NOT_FOUND, None, "There is no such file or folder here.")

    def _say_failed(self, error: OSError) -> None:
        """Send what became of a request that nobody is to blame for but this side.

        Raises: the error, if it is none of reading the folder.
        """
        if isinstance(error, ForbiddenError):
            status, text = HTTPStatus.FORBIDDEN, "The server may not read this."
        elif isinstance(error, TooManyError):
            status, text = HTTPStatus.NOT_IMPLEMENTED, f"{error}: too many for an archive."
        elif isinstance(error, ChangedSoonError):
            status, text = HTTPStatus.SERVICE_UNAVAILABLE, "It is being changed. Try again soon."
        elif is_passing(error):
            status, text = HTTPStatus.SERVICE_UNAVAILABLE, "The server is short of something."
        elif isinstance(error, FailedError):
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            text = "The server cannot read this: its disk may be broken."
        else:
            raise error
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.warning("share.failed", path=self.path, reason=str(error))
        self.send_error(status, None, text)

    def _pages_instead(
        self, share: Share, fields: Mapping[str, str], parts: Sequence[str] | None
    ) -> list[tuple[HTTPStatus, str]]:
        pages: list[tuple[HTTPStatus, str]] = []
        # A script or picture that is missing is no page of the application.
        if share.spa and parts and (wants_page(fields) or "." not in parts[-1]):
            pages += [(HTTPStatus.OK, name) for name in self.index_pages]
        if share.not_found_page:
            pages.append((HTTPStatus.NOT_FOUND, share.not_found_page))
        return pages

    def _send(
        self,
        share: Share,
        chosen: Representation,
        fields: Mapping[str, str],
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        conditions = fields if status == HTTPStatus.OK else {}
        made = answer(chosen, self.command, conditions, time.time())
        if status != HTTPStatus.OK:
            made = replace(made, status=status)
        send(self, share, made, fields.get("origin"))


def _open(share: Share, target: str) -> Opened:
    """Open what a target means.

    Raises: MissingError, ForbiddenError, FailedError.
    """
    parts = parts_of(target)
    if parts is None:
        raise MissingError(target)
    opened = share.jail.open(parts)
    if share.is_file(opened) and asks_folder(target):
        raise MissingError(target)  # a file is not found in a folder's place (bpo-17324)
    return opened
