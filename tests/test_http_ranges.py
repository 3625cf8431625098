"""Ranges as tables: RFC 9110 §14, and what is sent for several."""

import email.parser
import email.policy
import os

import pytest

from prefork.http.outbox import Descriptor, FilePiece
from prefork.http.ranges import parse_range
from prefork.http.representation import Representation, answer

ETAG = '"a1"'
MODIFIED = "Sun, 09 Sep 2001 01:46:40 GMT"
NOW_S = 1_800_000_000.0
HUGE = "9" * 4000

#: Of ten bytes: Range, and what of them is sent; []: 416, None: all.
OF_TEN = [
    # one
    ("bytes=0-0", [(0, 1)]),
    ("bytes=0-9", [(0, 10)]),
    ("bytes=3-5", [(3, 6)]),
    ("bytes=9-9", [(9, 10)]),
    ("bytes=5-", [(5, 10)]),
    ("bytes=0-", [(0, 10)]),
    ("BYTES=3-5", [(3, 6)]),
    ("Bytes=3-5", [(3, 6)]),
    ("bytes=003-0005", [(3, 6)]),
    # clamped
    ("bytes=0-10", [(0, 10)]),
    ("bytes=5-999999", [(5, 10)]),
    (f"bytes=5-{HUGE}", [(5, 10)]),
    (f"bytes={'0' * 4000}5-6", [(5, 7)]),
    ("bytes=0-9223372036854775807", [(0, 10)]),
    ("bytes=0-18446744073709551615", [(0, 10)]),
    # suffixes
    ("bytes=-1", [(9, 10)]),
    ("bytes=-10", [(0, 10)]),
    ("bytes=-11", [(0, 10)]),
    (f"bytes=-{HUGE}", [(0, 10)]),
    ("bytes=-003", [(7, 10)]),
    # none of them
    ("bytes=-0", []),
    ("bytes=10-", []),
    ("bytes=10-20", []),
    (f"bytes={HUGE}-", []),
    (f"bytes={HUGE}-{HUGE}", []),
    (f"bytes=18446744073709551616-{HUGE}", []),
    ("bytes=10-,20-30,-0", []),
    # malformed, thus ignored
    ("", None),
    ("bytes", None),
    ("bytes=", None),
    ("bytes=-", None),
    ("bytes=,", None),
    ("bytes=a-b", None),
    ("bytes=0", None),
    ("bytes=0-x", None),
    ("bytes=x-0", None),
    ("bytes=--1", None),
    ("bytes=0--1", None),
    ("bytes=+1-2", None),
    ("bytes=1_0-", None),
    ("bytes=0x1-2", None),
    ("bytes=\u0661-2", None),
    ("bytes=\xb2-", None),
    ("bytes=0 -1", None),
    ("bytes=0- 1", None),
    ("bytes =0-1", None),
    ("bytes:0-1", None),
    ("bytes 0-1", None),
    ("bytes=0-1 2-3", None),
    ("bytes=0-1;2-3", None),
    ("bytes=0-1\n", None),
    ("bytes=0-1,x", None),
    ("bytes=0-1, bytes=2-3", None),
    # invalid: the last before the first
    ("bytes=5-3", None),
    ("bytes=0-1,5-3", None),
    ("bytes=20-19", None),
    (f"bytes={HUGE}-1", None),
    (f"bytes={HUGE}9-{HUGE}", None),
    # another unit
    ("items=0-1", None),
    ("byte=0-1", None),
    ("bytess=0-1", None),
    ("none", None),
    # several, in the order asked for
    ("bytes=0-0,-1", [(0, 1), (9, 10)]),
    ("bytes=-1,0-0", [(9, 10), (0, 1)]),
    ("bytes=6-7 , 0-1\t,\t3-3", [(6, 8), (0, 2), (3, 4)]),
    ("bytes=,,0-1, ,3-4,", [(0, 2), (3, 5)]),
    ("bytes= 0-1", [(0, 2)]),
    ("bytes=0-4,5-9", [(0, 5), (5, 10)]),
    ("bytes=0-1,5-999", [(0, 2), (5, 10)]),
    ("bytes=0-1,20-30", [(0, 2)]),
    ("bytes=20-30,0-1,-0,4-5", [(0, 2), (4, 6)]),
    ("bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8,9-9", [(n, n + 1) for n in range(10)]),
    # two that overlap become one
    ("bytes=0-2,2-4", [(0, 5)]),
    ("bytes=2-4,0-2", [(0, 5)]),
    ("bytes=0-5,1-2", [(0, 6)]),
    ("bytes=1-1,1-1", [(1, 2)]),
    ("bytes=8-8,0-1,1-2", [(8, 9), (0, 3)]),
    ("bytes=0-1,8-8,1-2", [(0, 3), (8, 9)]),
    ("bytes=-2,8-", [(8, 10)]),
    # too much
    ("bytes=0-,0-", None),
    ("bytes=0-9,0-0", None),
    ("bytes=0-5,5-9", None),
    ("bytes=0-2,1-3,2-4", None),
    ("bytes=0-1,1-2,5-6,6-7", None),
    ("bytes=0-4,1-1,3-3", None),
    ("bytes=1-1,1-1,1-1", None),
    ("bytes=" + ",".join(["10-"] * 16), []),
    ("bytes=" + ",".join(["10-"] * 17), None),
    ("bytes=" + "0-," * 2000, None),
]


@pytest.mark.parametrize(("value", "spans"), OF_TEN, ids=lambda case: str(case)[:40])
def test_ranges_of_ten_bytes(value, spans):
    found = parse_range(value, 10)
    assert (None if found is None else list(map(tuple, found))) == spans


@pytest.mark.parametrize(
    ("value", "spans"),
    [
        ("bytes=0-", None),
        ("bytes=0-0", None),
        ("bytes=1-", ()),
        ("bytes=-0", ()),
        ("bytes=1-,-0", ()),
        ("bytes=-1", None),
        ("bytes=0-,-1", None),
        ("bytes=x", None),
    ],
)
def test_ranges_of_nothing(value, spans):
    assert parse_range(value, 0) == spans


@pytest.mark.parametrize("count", [2, 16, 17])
def test_up_to_sixteen_parts_are_sent(count):
    value = "bytes=" + ",".join(f"{n * 10}-{n * 10}" for n in range(count))
    found = parse_range(value, 1000)
    assert found == (tuple((n * 10, n * 10 + 1) for n in range(count)) if count <= 16 else None)


def test_the_longest_file_there_can_be_has_ranges_to_its_last_byte():
    size = (1 << 63) - 1
    assert parse_range("bytes=-1", size) == ((size - 1, size),)
    assert parse_range(f"bytes={size - 1}-", size) == ((size - 1, size),)
    assert parse_range(f"bytes={size}-", size) == ()


# -- what is sent -----------------------------------------------------------------

CONTENT = bytes(range(256)) * 40
HEADERS = (("Content-Type", "image/png"), ("Vary", "Accept-Encoding"))


def in_pieces(start, stop):
    """Yield the content in pieces of 1000 bytes at most, with nothing in between, as some do."""
    for begin in range(start, stop, 1000):
        yield b""
        yield CONTENT[begin : min(begin + 1000, stop)]


def ask(value, method="GET", headers=HEADERS, etag=ETAG, has_ranges=True, **fields):
    chosen = Representation(headers, len(CONTENT), etag, 1_000_000_000.0, in_pieces, has_ranges)
    more = {name.replace("_", "-"): text for name, text in fields.items()}
    return answer(chosen, method, {"range": value, **more}, NOW_S)


def parts_of(got):
    """Return the headers and content of each part of a multipart/byteranges, as email reads it."""
    head = dict(got.headers)
    body = b"".join(got.pieces)
    assert len(body) == got.size == int(head["Content-Length"])
    text = f"Content-Type: {head['Content-Type']}\r\n\r\n".encode() + body
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(text)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    assert not message.preamble
    assert not message.epilogue
    boundary = message.get_boundary().encode()
    # The email parser makes text of bodies: it tells what the heads are, not what the bytes are.
    raw = (b"\r\n" + body).split(b"\r\n--" + boundary)
    assert raw[0] == b""
    assert raw[-1] == b"--\r\n"
    contents = [part.partition(b"\r\n\r\n")[2] for part in raw[1:-1]]
    heads = [part.items() for part in message.iter_parts()]
    return list(zip(heads, contents, strict=True))


def test_one_range_is_sent_with_all_that_the_whole_has():
    got = ask("bytes=100-2099")
    assert got.status == 206
    assert dict(got.headers) == dict(HEADERS) | {
        "Content-Range": f"bytes 100-2099/{len(CONTENT)}",
        "Content-Length": "2000",
        "Last-Modified": MODIFIED,
        "ETag": ETAG,
        "Accept-Ranges": "bytes",
    }
    assert got.size == 2000
    assert b"".join(got.pieces) == CONTENT[100:2100]


def test_none_that_can_be_had_is_416_with_the_size():
    got = ask(f"bytes={len(CONTENT)}-")
    assert got.status == 416
    assert dict(got.headers) == {
        "Vary": "Accept-Encoding",
        "Content-Range": f"bytes */{len(CONTENT)}",
        "Accept-Ranges": "bytes",
        "Content-Length": "0",
    }
    assert (got.size, got.pieces) == (0, None)


@pytest.mark.parametrize(
    "spans", [[(0, 0), (5, 5)], [(10, 3000), (4000, 9000)], [(9000, 9999), (0, 0), (3, 4500)]]
)
def test_several_ranges_are_parts_with_their_own_heads(spans):
    got = ask("bytes=" + ",".join(f"{first}-{last}" for first, last in spans))
    assert got.status == 206
    head = dict(got.headers)
    assert "Content-Range" not in head
    assert (head["ETag"], head["Last-Modified"], head["Vary"]) == (
        ETAG,
        MODIFIED,
        "Accept-Encoding",
    )
    assert [name.lower() for name, _ in got.headers].count("content-type") == 1
    assert parts_of(got) == [
        (
            [
                ("Content-Type", "image/png"),
                ("Content-Range", f"bytes {first}-{last}/{len(CONTENT)}"),
            ],
            CONTENT[first : last + 1],
        )
        for first, last in spans
    ]


def test_parts_of_what_has_no_type_have_none_either():
    got = ask("bytes=0-0,2-2", headers=())
    assert [heads for heads, _ in parts_of(got)] == [
        [("Content-Range", f"bytes {n}-{n}/{len(CONTENT)}")] for n in (0, 2)
    ]


def test_a_type_with_line_ends_is_refused_in_a_part_as_in_a_head():
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        ask("bytes=0-0,2-2", headers=(("Content-Type", "a/b\r\nX: y"),))


def test_each_answer_with_parts_has_another_boundary():
    kinds = {dict(ask("bytes=0-0,2-2").headers)["Content-Type"] for _ in range(50)}
    assert len(kinds) == 50


def test_parts_are_taken_one_after_the_other_as_they_are_sent():
    taken = []

    def pieces(start, stop):
        taken.append((start, stop))
        yield b"x" * (stop - start)

    chosen = Representation(HEADERS, 100, ETAG, None, pieces)
    got = answer(chosen, "GET", {"range": "bytes=0-1,4-5"}, NOW_S)
    assert taken == []
    next(got.pieces)
    assert next(got.pieces) == b"xx"
    assert taken == [(0, 2)]


def test_pieces_of_files_are_handed_on_as_they_are(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        descriptor = Descriptor(os.dup(file.fileno()))
    chosen = Representation(
        HEADERS,
        len(CONTENT),
        ETAG,
        None,
        lambda start, stop: iter([FilePiece(descriptor, start, stop - start)]),
    )
    got = answer(chosen, "GET", {"range": "bytes=1-2,7-9"}, NOW_S)
    files = [piece for piece in got.pieces if type(piece) is FilePiece]
    assert [(piece.file, piece.offset, piece.count) for piece in files] == [
        (descriptor, 1, 2),
        (descriptor, 7, 3),
    ]


@pytest.mark.parametrize("coding", ["br", "gzip"])
def test_of_what_is_encoded_one_range_is_sent_and_never_several(coding):
    headers = (*HEADERS, ("Content-Encoding", coding))
    assert ask("bytes=0-0", headers=headers).status == 206
    assert ask("bytes=0-0,2-2", headers=headers).status == 200
    assert ask("bytes=99999-,99999-", headers=headers).status == 416


@pytest.mark.parametrize(
    ("case", "status"),
    [
        ({"method": "HEAD"}, 200),
        ({"has_ranges": False}, 200),
        ({"if_range": ETAG}, 206),
        ({"if_range": MODIFIED}, 206),
        ({"if_range": '"other"'}, 200),
        ({"if_range": "nonsense"}, 200),
        ({"if_range": f"W/{ETAG}", "etag": f"W/{ETAG}"}, 200),
        ({"etag": f"W/{ETAG}"}, 206),
        ({"if_none_match": ETAG}, 304),
        ({"if_none_match": '"other"'}, 206),
        ({"if_modified_since": MODIFIED}, 304),
        ({"if_match": ETAG}, 206),
        ({"if_match": '"other"'}, 412),
        ({"if_match": ETAG, "if_range": '"other"'}, 200),
        ({"if_match": '"other"', "if_range": ETAG}, 412),
        ({"if_none_match": ETAG, "if_range": ETAG}, 304),
    ],
    ids=str,
)
def test_ranges_come_after_all_preconditions(case, status):
    got = ask("bytes=0-0", **case)
    assert got.status == status
    assert ("Accept-Ranges" in dict(got.headers)) == (
        status in (200, 206) and case.get("has_ranges", True)
    )


def test_one_that_cannot_be_had_is_416_only_of_the_same_file():
    assert ask("bytes=99999-", if_range=ETAG).status == 416
    assert ask("bytes=99999-", if_range='"other"').status == 200


def test_if_range_without_range_means_nothing():
    chosen = Representation(HEADERS, 1, ETAG, None, lambda *_: iter([b"x"]))
    assert answer(chosen, "GET", {"if-range": '"other"'}, NOW_S).status == 200
