"""The sites that are named, under the servers that they are compared with; prints their ports."""

import importlib
import json
import socketserver
import sys
import threading
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


def find(name: str):
    module, _, attribute = name.removesuffix("()").partition(":")
    thing = getattr(importlib.import_module(module), attribute)
    return thing() if name.endswith("()") else thing


def serve(name: str) -> int:
    """Serve in a thread: WsgiDAV under cheroot, as it recommends, others under wsgiref."""
    application = find(name)
    if name.startswith("dav_site:"):
        server = importlib.import_module("cheroot.wsgi").Server(("127.0.0.1", 0), application)
        server.prepare()
        threading.Thread(target=server.serve, daemon=True).start()
        return server.bind_addr[1]
    server = make_server("127.0.0.1", 0, application, Server, Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


print("PORTS", json.dumps({name: serve(name) for name in sys.argv[1:]}), flush=True)
threading.Event().wait()
