"""One event is one line, whatever its values hold."""

import logging

import pytest

from prefork import log


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain-word/1.0", "plain-word/1.0"),
        (7, "7"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("line\nfeed", r'"line\x0afeed"'),
        ("\x1b]0;title\x07", r'"\x1b]0;title\x07"'),
        ("c1 \x9b", r'"c1 \x9b"'),
        ("separator\u2028", r'"separator\u2028"'),
        ("undecodable \udcff", r'"undecodable \xff"'),
        ("grüße-日本", "grüße-日本"),
    ],
)
def test_a_value_is_quoted_and_escaped_so_that_it_can_be_read_back(caplog, value, shown):
    with caplog.at_level(logging.INFO, "prefork"):
        log.info("some.event", first=1, value=value)
    assert caplog.messages == [f"some.event first=1 value={shown}"]


def test_an_event_below_the_level_is_not_even_put_together(caplog):
    class Costly:
        def __str__(self):
            raise AssertionError("asked for its text")

    with caplog.at_level(logging.WARNING, "prefork"):
        log.debug("some.event", value=Costly())
    assert caplog.messages == []


def test_an_exception_is_logged_with_its_traceback(caplog):
    try:
        int("no good")
    except ValueError:
        log.exception("some.event", slot=1)
    assert caplog.messages == ["some.event slot=1"]
    assert "ValueError: invalid literal" in caplog.text
