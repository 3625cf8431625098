"""A preforking server for the handler classes that Python programmers know.

`PreforkMixIn` is the third mix-in beside socketserver's `ForkingMixIn` and
`ThreadingMixIn`:

    class Server(PreforkMixIn, socketserver.TCPServer):
        workers = 4

    Server(("", 9000), Handler).serve_forever()

The way of one request, by file: `master` forks and supervises, `worker` waits
for the listening socket, `mixin` runs the stdlib's request hooks, `clients`
knows the connections in hand. The command line is `cli`, then `target`,
`servers` and `greeting`.
"""

from prefork.mixin import PreforkMixIn

__all__ = ["PreforkMixIn", "__version__"]

__version__ = "0.1.0"
