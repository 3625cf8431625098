"""The applications that the servers of WSGI run, each by its name."""

import functools
import importlib

HELLO = b"Hello, world!\n"
PIECES = tuple(bytes([letter]) * 65_536 for letter in b"abcdefghijklmnop")  # a mebibyte

_PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><title>{{ title }}</title></head><body><h1>{{ title }}</h1>
<table class="prices"><tbody>
{%- for item in items %}
<tr class="item" id="item-{{ item.number }}">
  <td class="name"><a href="/items/{{ item.number }}" title="All about it">{{ item.name }}</a></td>
  <td class="price"><span class="currency">EUR</span> {{ item.price }}</td>
  <td class="action"><button type="submit" name="buy">Into the basket</button></td></tr>
{%- endfor %}
</tbody></table></body></html>
"""
_ITEMS = [
    {"number": number, "name": f"Nuts & bolts, size {number}", "price": f"{number * 1.5:.2f}"}
    for number in range(36)
]


def app(_environ, start_response):
    return _whole(start_response, HELLO)


def page(_environ, start_response):
    return _whole(start_response, rendered(), "text/html; charset=utf-8")


def stream(_environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return (piece for piece in PIECES)


def upload(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    return _whole(start_response, b"%d" % len(body))


def rendered() -> bytes:
    """Return the page of some 10 KB."""
    return _template().render(title="Price list", items=_ITEMS).encode()


@functools.cache
def _template():
    jinja2 = importlib.import_module("jinja2")  # only who wants the page needs it
    return jinja2.Environment(autoescape=True).from_string(_PAGE)


def _whole(start_response, text, content_type="text/plain"):
    start_response("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(text)))])
    return [text]
