"""CGIHTTPRequestHandler: files, and the output of scripts (RFC 3875), on every Python.

A worker. It is the handler that http.server had up to 3.14, with its hooks and
its texts; what is said in one of its class variables is what differs from it.
Scripts run in processes of their own: no Python of this one runs in them. It
needs no engine, but without one bodies must have a length.

On purpose otherwise than the stdlib in all its versions:

- The status of an answer is what the script says; `script_output_follows` has
  the stdlib's `200 Script output follows` back.
- A script sees nothing of the server's environment but `cgi_inherited`, and all
  of the client's fields, not four. Nobody is REMOTE_USER by saying so.
- Root's scripts have nobody's group and groups, too, or do not run.
- A script's folder is where it runs. It gets arguments from an indexed query
  only, one for each word (§4.4).
- A path is unquoted once. One that climbs out of the root is answered.
"""

import functools
import importlib
import os
import pwd
import sys
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar, Final

from prefork.http.cgi.run import Limits, Run
from prefork.http.cgi.scripts import Script, arguments_of, find_script, split_folder, split_url
from prefork.http.folder import SimpleHTTPRequestHandler

#: Whom root's scripts run as, by number; None: the account of that name. A program may set it in
#: `prefork.http`, as in http.server.
nobody: Final[int | None] = None

#: Local redirects of one request (httpd's LimitInternalRecursion).
_REDIRECTS: Final = 10


def nobody_uid() -> int:
    """Return the number of the user nobody, or one that is nobody's."""
    chosen: int | None = importlib.import_module("prefork.http").nobody
    return chosen or _account_of_nobody()


@functools.cache
def _account_of_nobody() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return 1 + max(account.pw_uid for account in pwd.getpwall())


def executable(path: str | os.PathLike[str]) -> bool:
    """Tell whether this process may execute a file."""
    return os.access(path, os.X_OK)


class CGIHTTPRequestHandler(SimpleHTTPRequestHandler):
    """Serves GET and HEAD from `directory`; GET, HEAD and POST from scripts in some of its folders.

    cgi_info: after `is_cgi()`, the folder of scripts in the URL, and what follows it.
    """

    #: Paths of URLs: what lies below is run, never shown.
    cgi_directories: ClassVar[list[str]] = ["/cgi-bin", "/htbin"]
    #: True: every answer is `200 Script output follows`, and Status and Location are mere headers.
    script_output_follows = False
    #: Seconds for which a script may neither read nor write, then 504; None: for ever.
    cgi_timeout: float | None = 60.0
    #: Seconds that a script may take in all, then 504.
    cgi_time_limit: float | None = None
    #: Bytes of the headers that a script says, then 502.
    cgi_header_bytes: int = 1 << 16
    #: Bytes of all the rest, then the connection is cut.
    cgi_output_bytes: int | None = None
    #: Variables that scripts get from the server's environment.
    cgi_inherited: Sequence[str] = (
        "PATH",
        "LD_LIBRARY_PATH",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "TMPDIR",
    )
    #: Variables that they get besides, in place of all others of that name.
    cgi_environment: Mapping[str, str] = MappingProxyType({})
    #: Whether they get HTTP_AUTHORIZATION, AUTH_TYPE and REMOTE_USER: what a client says of itself,
    #: for scripts that look at the password.
    cgi_authorization = False

    #: False: a script in Python need not be executable, this interpreter runs it.
    have_fork: ClassVar[bool] = True

    cgi_info: tuple[str, str]
    _split: tuple[tuple[str, str], str] | None = None
    _redirects = 0

    def do_POST(self) -> None:  # noqa: N802 # the stdlib's name
        """Run a script; there is nothing else to POST to."""
        is_script = self._names_script()
        if is_script:
            self.run_cgi()
        elif is_script is False:
            self.send_error(HTTPStatus.NOT_IMPLEMENTED, "Can only POST to CGI scripts")

    def send_head(self) -> Any:
        """Run a script, and return None; or do as for any other file."""
        is_script = self._names_script()
        if is_script:
            self.run_cgi()
        elif is_script is False:
            return super().send_head()
        return None

    def is_cgi(self) -> bool:
        """Tell whether `path` is that of a script, and set `cgi_info`.

        Raises: IndexError if ".." climbs out of the root.
        """
        path, query = split_url(self.path)
        found = split_folder(path, self.cgi_directories)
        if found is None:
            return False
        self.cgi_info = found[0], f"{found[1]}?{query}" if query else found[1]
        self._split = self.cgi_info, query
        return True

    def is_executable(self, path: str) -> bool:
        """Tell whether this process may execute a file."""
        return executable(path)

    def is_python(self, path: str) -> bool:
        """Tell whether a file is a script in Python, by its name."""
        return path.lower().endswith((".py", ".pyw"))

    def run_cgi(self) -> None:
        """Run the script that `cgi_info` tells, and answer what it says."""
        script = self._find_script()
        problem = self._problem(script)
        if problem is not None:
            self.send_error(*problem)
            return
        limits = Limits(
            self.cgi_timeout, self.cgi_time_limit, self.cgi_header_bytes, self.cgi_output_bytes
        )
        run = Run(self, script, limits, nobody_uid() if os.geteuid() == 0 else None)
        redirect = run.run(self._command(script), has_body=not self._redirects)
        if redirect:
            self._answer_instead(redirect)

    def _names_script(self) -> bool | None:
        """Tell whether a script is asked for; None: the path is wrong, and that has been said."""
        try:
            return self.is_cgi()
        except IndexError:
            self.send_error(HTTPStatus.BAD_REQUEST, "Bad path: '..' climbs out of the root")
            return None

    def _find_script(self) -> Script:
        folder, rest = self.cgi_info
        if self._split is not None and self._split[0] is self.cgi_info:
            query = self._split[1]  # an unquoted "%3F" is no question mark
            rest = rest.removesuffix(f"?{query}") if query else rest
        else:
            rest, _, query = rest.partition("?")
        return find_script(folder, rest, query, self.translate_path)

    def _problem(self, script: Script) -> tuple[HTTPStatus, str] | None:
        name, file = script.name, script.file
        if "\0" in name + script.path_info or not os.path.exists(file):  # noqa: PTH110 # a str
            return HTTPStatus.NOT_FOUND, f"No such CGI script ({name!a})"
        if not os.path.isfile(file):  # noqa: PTH113 # a str
            return HTTPStatus.FORBIDDEN, f"CGI script is not a plain file ({name!a})"
        if (self.have_fork or not self.is_python(name)) and not self.is_executable(file):
            return HTTPStatus.FORBIDDEN, f"CGI script is not executable ({name!a})"
        return None

    def _command(self, script: Script) -> list[str]:
        command = [script.file]
        if not self.have_fork and self.is_python(script.file):
            command = [sys.executable, "-u", script.file]
        return command + (arguments_of(script.query) if self.command in ("GET", "HEAD") else [])

    def _answer_instead(self, location: str) -> None:
        """Answer as if another path had been asked for, by GET (RFC 3875 §6.2.2)."""
        if self._redirects >= _REDIRECTS:
            self.send_error(HTTPStatus.BAD_GATEWAY, "Too many redirects from script to script")
            return
        before = self.path, self.command
        self.path, self.command = location, "HEAD" if self.command == "HEAD" else "GET"
        self._redirects += 1
        try:
            getattr(self, f"do_{self.command}")()
        finally:
            self._redirects -= 1
            self.path, self.command = before


def unless_script(
    plain: Callable[[Any], None], fast: Callable[[Any], None]
) -> Callable[[Any], None]:
    """Return a `do_GET()` or `do_HEAD()`: plain for scripts, and for what is wrong; else fast."""

    def do(self: Any) -> None:
        try:
            is_script = self.is_cgi()
        except IndexError:
            is_script = True
        (plain if is_script else fast)(self)

    return do
