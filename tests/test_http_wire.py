"""Every case of `wire/*.http` on a connection to a real server: whole, and in pieces."""

import contextlib
import io

import pytest
import wire_cases
from http_rig import App, Reader

CASES = wire_cases.all_cases()
#: Longer ones are cut into pieces of 1000 bytes, shorter ones into single bytes.
SHORT_BYTES = 600
#: What may come of a body that is cut short; never a success.
FAILURES = {400, 408, 500}


@pytest.fixture(scope="module", params=[0, 4], ids=["inline", "threads"])
def app(request):
    with App(threads=request.param) as app:
        yield app
        assert app.stop() == 0
        assert app.log.text().count("worker.died") == 1, "a case has ended the worker"


def pieces_of(data):
    size = 1 if len(data) <= SHORT_BYTES else 1000
    return [data[at : at + size] for at in range(0, len(data), size)]


def converse(app, parts):
    """Return the answers on one connection, and the requests that its handler has read."""
    with app.connect() as client:
        with contextlib.suppress(ConnectionError):  # refused already
            for part in parts:
                client.send(part)
        client.end()
        data = client.at_end()
        seen = app.ask(f"/seen?port={client.port}").json()
    reader = Reader(io.BytesIO(data))
    answers = [reader.answer(request["method"]) for request in seen]
    while reader.file.tell() < len(data):
        answers.append(reader.answer())
    return answers, seen


def check(case, answers, seen):
    wanted = [want for want in case.wants if want.accepted]
    for want, request in zip(wanted, seen, strict=True):
        assert request["method"] == want.method
        assert request["target"] == want.target
        assert request["version"] == want.version
        assert request["body"].encode("latin-1") == want.body
        for name, value in want.fields:
            assert [name, value] in request["fields"]
    expected = [403 if want.method == "CONNECT" else 200 for want in wanted]
    assert [answer.status for answer in answers[: len(seen)]] == expected
    statuses = [answer.status for answer in answers[len(seen) :]]
    last = case.wants[-1]
    if last.accepted:
        assert statuses == []
    elif last.incomplete:
        assert len(statuses) < 2
        assert set(statuses) <= FAILURES
    else:
        assert statuses == [last.status]
        assert answers[-1]["Connection"] == "close"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_sent_whole(app, case):
    check(case, *converse(app, [case.data]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_sent_in_pieces(app, case):
    check(case, *converse(app, pieces_of(case.data)))
