"""The work of `peers.Hello` as a WSGI application, for servers of that protocol."""

HELLO = b"Hello, world!\n"
THANKS = b"ok"


def app(environ, start_response):
    text = HELLO
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        text = THANKS
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]
