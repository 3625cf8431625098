"""A preforking server for the handler classes that Python programmers know.

`PreforkMixIn` is the third mix-in beside socketserver's `ForkingMixIn` and
`ThreadingMixIn`:

    class Server(PreforkMixIn, socketserver.TCPServer):
        workers = 4

    Server(("", 9000), Handler).serve_forever()

The way of one request, by file: `acceptor` waits for the listening sockets,
`worker` runs the loop, `mixin` calls the stdlib's hooks, `clients` knows the
connections in hand. The way of a worker: `fleet` decides, `master` performs it
on `children`. The command line is `cli`, then `target`, `handlers`,
`listeners`, `servers` and `greeting`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefork.mixin import PreforkMixIn

__all__ = ["PreforkMixIn", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is asked for, once it is sure that this system can run it."""
    if name != "PreforkMixIn":
        raise AttributeError(f"module 'prefork' has no attribute {name!r}")
    from prefork.system import require_platform  # noqa: PLC0415 # `import prefork` stays light

    require_platform()
    from prefork.mixin import PreforkMixIn  # noqa: PLC0415 # needs the system just checked

    return PreforkMixIn
