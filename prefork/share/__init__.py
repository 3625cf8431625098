"""A folder shared with the network: `handler = "prefork.share:ShareRequestHandler"`.

It puts a name together and has no code of its own; `handler` says what it does.
"""

from prefork.share.handler import ShareRequestHandler

__all__ = ["ShareRequestHandler"]
