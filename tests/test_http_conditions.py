"""Preconditions, dates and Accept-Encoding, as tables: RFC 9110 §13, §5.6.7, §12.5.3."""

import calendar

import pytest

from prefork.http.codings import acceptable
from prefork.http.conditions import is_of_same, judge, parse_date
from prefork.http.representation import Representation, answer

MODIFIED_S = calendar.timegm((2001, 9, 9, 1, 46, 40))
MODIFIED = "Sun, 09 Sep 2001 01:46:40 GMT"
BEFORE = "Sun, 09 Sep 2001 01:46:39 GMT"
AFTER = "Sun, 09 Sep 2001 01:46:41 GMT"
NOW_S = calendar.timegm((2026, 11, 20, 12, 0, 0)) + 0.5
ETAG = '"a1"'

#: Fields, and the status for GET with a strong ETag and a date; None: go on.
JUDGED = [
    ({}, None),
    # §13.1.1: strong, any of a list
    ({"if-match": ETAG}, None),
    ({"if-match": "*"}, None),
    ({"if-match": '"other"'}, 412),
    ({"if-match": '"other", "a1"'}, None),
    ({"if-match": '"other","a1"'}, None),
    ({"if-match": ',, "other" ,\t, "a1",'}, None),
    ({"if-match": 'W/"a1"'}, 412),
    ({"if-match": 'W/"a1", "a1"'}, None),
    ({"if-match": '"A1"'}, 412),
    ({"if-match": "a1"}, 412),
    ({"if-match": ""}, 412),
    ({"if-match": '"a1'}, 412),
    ({"if-match": '* , "other"'}, 412),
    ({"if-match": '"other" "a1"'}, 412),
    ({"if-match": 'other, "a1"'}, 412),
    ({"if-match": '"a1", other'}, None),
    ({"if-match": '"x, "a1"'}, 412),
    ({"if-match": '"\xe9", "a1"'}, None),
    # §13.1.4
    ({"if-unmodified-since": MODIFIED}, None),
    ({"if-unmodified-since": AFTER}, None),
    ({"if-unmodified-since": BEFORE}, 412),
    ({"if-unmodified-since": "Sunday, 09-Sep-01 01:46:39 GMT"}, 412),
    ({"if-unmodified-since": "yesterday"}, None),
    ({"if-match": ETAG, "if-unmodified-since": BEFORE}, None),
    ({"if-match": '"other"', "if-unmodified-since": AFTER}, 412),
    # §13.1.2: weak
    ({"if-none-match": ETAG}, 304),
    ({"if-none-match": "*"}, 304),
    ({"if-none-match": 'W/"a1"'}, 304),
    ({"if-none-match": 'w/"a1"'}, None),
    ({"if-none-match": '"other"'}, None),
    ({"if-none-match": '"other", W/"a1"'}, 304),
    ({"if-none-match": '"a,1", "a1"'}, 304),
    ({"if-none-match": '"a1, other"'}, None),
    ({"if-none-match": "a1"}, None),
    ({"if-none-match": '*, "other"'}, None),
    ({"if-none-match": ""}, None),
    # §13.1.3: not beside If-None-Match
    ({"if-modified-since": MODIFIED}, 304),
    ({"if-modified-since": AFTER}, 304),
    ({"if-modified-since": "Fri, 20 Nov 2099 01:46:41 GMT"}, 304),
    ({"if-modified-since": BEFORE}, None),
    ({"if-modified-since": "Sun Sep  9 01:46:40 2001"}, 304),
    ({"if-modified-since": f"{MODIFIED}; length=4"}, None),
    ({"if-modified-since": f"{MODIFIED}, {MODIFIED}"}, None),
    ({"if-none-match": '"other"', "if-modified-since": AFTER}, None),
    ({"if-none-match": "other", "if-modified-since": AFTER}, None),
    ({"if-none-match": ETAG, "if-modified-since": BEFORE}, 304),
    # §13.2.2: in this order
    ({"if-match": '"other"', "if-none-match": ETAG}, 412),
    ({"if-match": ETAG, "if-none-match": ETAG}, 304),
    ({"if-unmodified-since": BEFORE, "if-none-match": ETAG}, 412),
    ({"if-unmodified-since": MODIFIED, "if-modified-since": MODIFIED}, 304),
]


@pytest.mark.parametrize(("fields", "status"), JUDGED, ids=str)
def test_preconditions_are_judged_in_the_rfcs_order(fields, status):
    assert judge("GET", fields, ETAG, MODIFIED_S, NOW_S) == status
    assert judge("HEAD", fields, ETAG, MODIFIED_S, NOW_S) == status


@pytest.mark.parametrize(
    ("method", "fields", "status"),
    [
        ("PUT", {"if-none-match": "*"}, 412),
        ("PUT", {"if-none-match": ETAG}, 412),
        ("DELETE", {"if-none-match": '"other"'}, None),
        ("PUT", {"if-modified-since": AFTER}, None),
        ("PUT", {"if-match": '"other"'}, 412),
        ("PUT", {"if-unmodified-since": BEFORE}, 412),
    ],
)
def test_what_writes_is_refused_and_never_told_that_nothing_has_changed(method, fields, status):
    assert judge(method, fields, ETAG, MODIFIED_S, NOW_S) == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"if-match": 'W/"a1"'}, 412),
        ({"if-match": '"a1"'}, 412),
        ({"if-match": "*"}, None),
        ({"if-none-match": '"a1"'}, 304),
        ({"if-none-match": 'W/"a1"'}, 304),
    ],
)
def test_a_weak_entity_tag_is_like_others_only_weakly(fields, status):
    assert judge("GET", fields, 'W/"a1"', MODIFIED_S, NOW_S) == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"if-match": '"a1"'}, 412),
        ({"if-match": "*"}, None),
        ({"if-none-match": '"a1"'}, None),
        ({"if-none-match": "*"}, 304),
        ({"if-modified-since": AFTER}, None),
        ({"if-unmodified-since": BEFORE}, None),
    ],
)
def test_without_validators_only_any_of_them_holds(fields, status):
    assert judge("GET", fields, None, None, NOW_S) == status


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", (1994, 11, 6, 8, 49, 37)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", (1994, 11, 6, 8, 49, 37)),
        ("Sun Nov  6 08:49:37 1994", (1994, 11, 6, 8, 49, 37)),
        ("Wed Nov 16 08:49:37 1994", (1994, 11, 16, 8, 49, 37)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", (1970, 1, 1, 0, 0, 0)),
        ("Wed, 31 Dec 1969 23:59:59 GMT", (1969, 12, 31, 23, 59, 59)),
        ("Sat, 31 Dec 2016 23:59:60 GMT", (2017, 1, 1, 0, 0, 0)),
        ("Thu, 29 Feb 2024 00:00:00 GMT", (2024, 2, 29, 0, 0, 0)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", (9999, 12, 31, 23, 59, 59)),
        # the day of the week is not looked at
        ("Mon, 06 Nov 1994 08:49:37 GMT", (1994, 11, 6, 8, 49, 37)),
        # two digits: at most 50 years from 2026-11-20 12:00:00 on
        ("Friday, 20-Nov-26 11:00:00 GMT", (2026, 11, 20, 11, 0, 0)),
        ("Friday, 20-Nov-76 12:00:00 GMT", (2076, 11, 20, 12, 0, 0)),
        ("Friday, 20-Nov-76 12:00:01 GMT", (1976, 11, 20, 12, 0, 1)),
        ("Friday, 31-Dec-75 12:00:00 GMT", (2075, 12, 31, 12, 0, 0)),
        ("Friday, 01-Jan-77 12:00:00 GMT", (1977, 1, 1, 12, 0, 0)),
        ("Friday, 31-Dec-99 23:59:59 GMT", (1999, 12, 31, 23, 59, 59)),
        ("Saturday, 01-Jan-00 00:00:00 GMT", (2000, 1, 1, 0, 0, 0)),
    ],
)
def test_dates_are_read_in_all_three_forms(text, moment):
    assert parse_date(text, NOW_S) == calendar.timegm(moment)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "1000000000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 -0000",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "Sun, 31 Jun 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 29 Feb 2023 08:49:37 GMT",
        "Tuesday, 29-Feb-77 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
        "1994-11-06T08:49:37Z",
        '"a1"',
    ],
)
def test_other_texts_are_no_dates(text):
    assert parse_date(text, NOW_S) is None


@pytest.mark.parametrize(
    ("value", "etag", "is_same"),
    [
        (ETAG, ETAG, True),
        ('"other"', ETAG, False),
        (f"W/{ETAG}", ETAG, False),
        (f"W/{ETAG}", f"W/{ETAG}", False),
        (ETAG, f"W/{ETAG}", False),
        (ETAG, None, False),
        (f'{ETAG}, "other"', ETAG, False),
        ("a1", ETAG, False),
        ("*", ETAG, False),
        ("", ETAG, False),
        (MODIFIED, ETAG, True),
        (MODIFIED, None, True),
        ("Sunday, 09-Sep-01 01:46:40 GMT", ETAG, True),
        ("Sun Sep  9 01:46:40 2001", ETAG, True),
        (BEFORE, ETAG, False),
        (AFTER, ETAG, False),
    ],
)
def test_if_range_names_just_one_strong_validator(value, etag, is_same):
    assert is_of_same(value, etag, MODIFIED_S, NOW_S) == is_same


@pytest.mark.parametrize(
    ("age_s", "is_same"), [(0.0, False), (0.9, False), (1.0, True), (1.9, True)]
)
def test_a_date_of_this_very_second_is_no_strong_validator(age_s, is_same):
    """The file may have had other content in the same second (§8.8.2.2)."""
    assert is_of_same(MODIFIED, None, MODIFIED_S, MODIFIED_S + age_s) == is_same


def test_without_a_time_of_modification_no_date_is_the_same():
    assert not is_of_same(MODIFIED, ETAG, None, NOW_S)


# -- what comes of it: answer() -------------------------------------------------

HEADERS = (
    ("Content-Type", "text/html"),
    ("Content-Encoding", "br"),
    ("Content-Location", "/page.br"),
    ("Content-Security-Policy", "sandbox"),
    ("content-disposition", "attachment"),
    ("Vary", "Accept-Encoding"),
    ("Cache-Control", "no-cache"),
    ("Access-Control-Allow-Origin", "*"),
)
KEPT = (
    ("Content-Location", "/page.br"),
    ("Vary", "Accept-Encoding"),
    ("Cache-Control", "no-cache"),
    ("Access-Control-Allow-Origin", "*"),
)


def chosen(etag=ETAG, modified_s=MODIFIED_S + 0.7, headers=HEADERS, size=4, has_ranges=True):
    return Representation(
        headers, size, etag, modified_s, lambda start, stop: iter([b"text"[start:stop]]), has_ranges
    )


def test_304_has_what_a_cache_needs_and_nothing_of_the_content():
    got = answer(chosen(), "GET", {"if-none-match": ETAG}, NOW_S)
    assert got.status == 304
    assert got.headers == (*KEPT, ("ETag", ETAG))
    assert (got.size, got.pieces) == (0, None)


def test_304_tells_last_modified_where_there_is_no_etag():
    got = answer(chosen(etag=None), "HEAD", {"if-modified-since": MODIFIED}, NOW_S)
    assert got.headers == (*KEPT, ("Last-Modified", MODIFIED))


def test_412_has_no_content():
    got = answer(chosen(), "GET", {"if-match": '"other"'}, NOW_S)
    assert got.status == 412
    assert got.headers == (*KEPT, ("Content-Length", "0"))
    assert (got.size, got.pieces) == (0, None)


def test_without_conditions_all_of_it_is_sent_with_its_validators():
    got = answer(chosen(), "GET", {"host": "here"}, NOW_S)
    assert got.status == 200
    assert dict(got.headers) == dict(HEADERS) | {
        "Content-Length": "4",
        "Last-Modified": MODIFIED,
        "ETag": ETAG,
        "Accept-Ranges": "bytes",
    }
    assert got.size == 4
    assert list(got.pieces) == [b"text"]


def test_head_is_answered_as_get_but_for_the_body():
    got = answer(chosen(), "HEAD", {}, NOW_S)
    assert got.headers == answer(chosen(), "GET", {}, NOW_S).headers
    assert (got.size, got.pieces) == (4, None)


def test_what_has_no_known_size_is_sent_to_its_end_without_ranges():
    got = answer(chosen(size=None), "GET", {"range": "bytes=0-0"}, NOW_S)
    names = {name for name, _ in got.headers}
    assert (got.status, got.size) == (200, None)
    assert names.isdisjoint({"Content-Length", "Accept-Ranges", "Content-Range"})
    assert list(got.pieces) == [b"text"]


def test_a_file_from_the_future_was_modified_now():
    """Last-Modified is never later than Date, and so is no reason for a 304 (§8.8.2.1)."""
    future = chosen(etag=None, modified_s=NOW_S + 3600)
    got = answer(future, "GET", {"if-modified-since": MODIFIED}, NOW_S)
    assert got.status == 200
    assert dict(got.headers)["Last-Modified"] == "Fri, 20 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("modified_s", "date"),
    [
        (0.9, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (-0.1, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (-(10.0**12), None),
        (None, None),
    ],
)
def test_last_modified_is_told_where_a_date_can_tell_it(modified_s, date):
    got = answer(chosen(modified_s=modified_s), "GET", {}, NOW_S)
    assert dict(got.headers).get("Last-Modified") == date


# -- codings ---------------------------------------------------------------------

ALL = ("gzip", "br", "zstd")


@pytest.mark.parametrize(
    ("value", "offered", "coding"),
    [
        (None, ALL, None),
        ("", ALL, None),
        ("identity", ALL, None),
        ("gzip", ALL, "gzip"),
        ("GZip", ALL, "gzip"),
        ("x-gzip", ALL, "gzip"),
        ("deflate", ALL, None),
        ("gzip, deflate, br, zstd", ALL, "br"),
        ("gzip, deflate, zstd", ALL, "zstd"),
        ("gzip, deflate, br", ("gzip",), "gzip"),
        ("gzip, br", (), None),
        ("gzip;q=1.0, br;q=0.9", ALL, "gzip"),
        ("gzip ; Q=0.5\t,br;q=0.501", ALL, "br"),
        ("gzip;q=0", ALL, None),
        ("gzip;q=0.000, br;q=0.001", ALL, "br"),
        ("*", ALL, "br"),
        ("*", ("gzip",), "gzip"),
        ("*;q=0", ALL, None),
        ("br;q=0, *", ALL, "zstd"),
        ("gzip, *;q=0", ALL, "gzip"),
        ("gzip;q=0.5, *;q=0.8", ALL, "br"),
        ("identity;q=0, gzip;q=0.1", ALL, "gzip"),
        ("identity;q=0", ALL, None),
        ("identity;q=0, *", ALL, "br"),
        ("identity, gzip;q=0.5", ALL, None),
        ("identity;q=0.5, gzip;q=0.5", ALL, "gzip"),
        ("gzip;q=0.5", ALL, "gzip"),
        ("gzip;q=2, br;q=0.1", ALL, "br"),
        ("gzip;q=, br;q=0.1", ALL, "br"),
        ("gzip;level=9", ALL, None),
        ("gzip;q=-1", ALL, None),
        ("gzip;q=nan", ALL, None),
        ("g zip", ALL, None),
        (", ,gzip,,", ALL, "gzip"),
        ("gzip;q=0, gzip", ALL, None),
        ("xz, lz4", ("lz4", "xz"), "lz4"),
        ("xz, lz4, gzip", ("lz4", "xz", "gzip"), "gzip"),
    ],
)
def test_the_coding_is_the_one_that_the_client_likes_best(value, offered, coding):
    assert acceptable(value, offered) == coding
