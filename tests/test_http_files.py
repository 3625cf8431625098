"""Files over the engine: the open-file cache, sendfile, and files that change meanwhile."""

import hashlib
import os
import socket
import threading
import time

import pytest
from harness import Prefork, wait_until
from http_rig import Client

from prefork.http.outbox import Meter, Outbox

LARGE = 3_000_000  # more than the buffers of both sides hold
CHANGES_S = 10.0  # a change is everybody's after a second, on a quiet machine


PLAIN = "prefork.http:SimpleHTTPRequestHandler"


class Share(Prefork):
    """The stdlib's handler of a folder, with one worker."""

    def __init__(self, folder, *options):
        super().__init__(PLAIN, "0", "-b", "127.0.0.1", "-w", "1", "-d", folder, *options)

    def connect(self, **options):
        return Client(("127.0.0.1", self.port), **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module", params=["0", "4"], ids=["inline", "threads"])
def share(folder, request):
    with Share(folder, "-t", request.param) as daemon:
        yield daemon


def content(seed, size):
    return hashlib.shake_128(seed.encode()).digest(size)


@pytest.mark.parametrize("size", [0, 1, 1024, 32768, 32769, 100_000, LARGE])
def test_a_file_arrives_whole_and_again_from_the_cache(share, folder, size):
    data = content("whole", size)
    (folder / f"{size}.bin").write_bytes(data)
    with share.connect() as client:
        for _ in range(3):
            answer = client.ask(f"/{size}.bin")
            assert (answer.status, answer["Content-Length"]) == (200, str(size))
            assert answer.body == data


@pytest.mark.parametrize("size", [10, LARGE])
def test_head_says_what_get_does_without_the_body(share, folder, size):
    (folder / f"head{size}.txt").write_bytes(content("head", size))
    with share.connect() as client:
        get, head = client.ask(f"/head{size}.txt"), client.ask(f"/head{size}.txt", method="HEAD")
    wanted = ("Content-type", "Content-Length", "Last-Modified", "Server")
    assert [head[name] for name in wanted] == [get[name] for name in wanted]
    assert head.body == b""


def test_one_client_that_asks_for_many_files_at_once_gets_them_in_order(share, folder):
    sizes = [10, 50_000, 0, LARGE, 1000, 33_000]
    for size in sizes:
        (folder / f"p{size}").write_bytes(content("pipeline", size))
    with share.connect() as client:
        client.send(b"".join(b"GET /p%d HTTP/1.1\r\nHost: x\r\n\r\n" % size for size in sizes))
        for size in sizes:
            assert client.answer().body == content("pipeline", size)


@pytest.mark.parametrize("size", [100, LARGE])
def test_a_replaced_file_is_everybodys_after_a_second(share, folder, size):
    path = folder / f"replaced{size}"
    path.write_bytes(content("old", size))
    with share.connect() as client:
        assert client.ask(f"/{path.name}").body == content("old", size)
        new = folder / "new"
        new.write_bytes(content("new", size))
        new.replace(path)
        seen = set()

        def is_new():
            body = client.ask(f"/{path.name}").body
            seen.add(body)
            return body == content("new", size)

        wait_until(is_new, CHANGES_S)
    assert seen <= {content("old", size), content("new", size)}


def test_a_small_file_that_grows_or_shrinks_is_never_sent_with_the_old_length(share, folder):
    path = folder / "sized"
    with share.connect() as client:
        for size in (100, 5000, 3, 0, 31_000, 10):
            path.write_bytes(b"x" * size)
            answer = client.ask("/sized")
            assert (answer["Content-Length"], len(answer.body)) == (str(size), size)


def test_a_removed_file_is_gone_after_a_second(share, folder):
    path = folder / "removed"
    path.write_bytes(b"here")
    with share.connect() as client:
        assert client.ask("/removed").status == 200
        path.unlink()
        with share.connect() as other:
            wait_until(lambda: is_missing(other, "/removed"), CHANGES_S)


def is_missing(client, path):
    """Ask; an error ends the connection, so that only one answer can be a 404."""
    return client.ask(path).status == 404


def test_a_file_cut_while_it_is_sent_breaks_the_connection(share, folder):
    path = folder / "cut"
    size = 30_000_000
    path.write_bytes(content("cut", 1000) * (size // 1000))
    with share.connect(receive_bytes=4096) as client:
        client.request("/cut")
        client.file.peek(1)
        os.truncate(path, 1 << 20)
        answer = client.answer()
    assert not answer.is_whole
    assert answer["Content-Length"] == str(size)
    # Pages that were on their way already, the kernel itself may have zeroed.
    assert answer.body[: 1 << 20] == (content("cut", 1000) * (size // 1000))[: 1 << 20]
    assert len(answer.body) < size


def test_slow_readers_of_a_large_file_hold_up_nobody(share, folder):
    (folder / "slow").write_bytes(content("slow", 30_000_000))
    (folder / "quick").write_bytes(b"quick")
    slow = [share.connect(receive_bytes=4096) for _ in range(20)]
    try:
        for client in slow:
            client.request("/slow")
            client.file.peek(1)
        with share.connect() as other:
            for _ in range(20):
                assert other.ask("/quick").body == b"quick"
        assert hashlib.sha256(slow[7].answer().body).digest() == (
            hashlib.sha256(content("slow", 30_000_000)).digest()
        )
    finally:
        for client in slow:
            client.close()


def test_the_types_dates_and_conditions_of_the_stdlib_hold_for_cached_files(share, folder):
    (folder / "page.html").write_text("<p>")
    os.utime(folder / "page.html", (1_000_000_000, 1_000_000_000))
    with share.connect() as client:
        for _ in range(2):
            answer = client.ask("/page.html?query=1")
            assert answer["Content-type"] == "text/html"
            assert answer["Last-Modified"] == "Sun, 09 Sep 2001 01:46:40 GMT"
            same = client.ask(
                "/page.html", fields=["If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT"]
            )
            assert (same.status, same.body) == (304, b"")


def test_a_folder_shows_its_index_and_notices_a_new_one(share, folder):
    inner = folder / "indexed"
    inner.mkdir(exist_ok=True)
    (inner / "index.htm").write_text("second")
    with share.connect() as client:
        assert client.ask("/indexed/").body == b"second"
        (inner / "index.html").write_text("first")
        wait_until(lambda: client.ask("/indexed/").body == b"first", CHANGES_S)
    (inner / "index.html").unlink()


def test_a_fifo_and_a_socket_hold_up_nobody(share, folder):
    (folder / "fifo").unlink(missing_ok=True)
    (folder / "socket").unlink(missing_ok=True)
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        for name in ("fifo", "socket"):
            with share.connect() as client:
                assert client.ask(f"/{name}").status == 404
    (folder / "fifo").unlink()


def test_files_stay_open_in_bounded_number_and_time(share, folder):
    many = folder / "many"
    many.mkdir(exist_ok=True)
    for n in range(1500):
        (many / f"{n}").write_bytes(b"x")
    (worker,) = share.workers()
    with share.connect() as client:
        for n in range(1500):
            if n % 900 == 899:  # a connection has its number of requests
                client.close()
                client.__init__(("127.0.0.1", share.port))
            assert client.ask(f"/many/{n}").body == b"x"
    assert len(os.listdir(f"/proc/{worker}/fd")) < 1100  # noqa: PTH208 # names are enough


def test_threads_that_ask_for_one_file_all_get_it_while_it_is_replaced(share, folder):
    versions = [content(f"v{n}", 40_000 + n) for n in range(30)]
    (folder / "swapped").write_bytes(versions[0])
    wrong, stop = [], threading.Event()

    def ask():
        with share.connect() as client:
            for _ in range(300):
                body = client.ask("/swapped").body
                if body not in versions:
                    wrong.append(body)
            stop.set()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for data in versions:
        (folder / "swapping").write_bytes(data)
        (folder / "swapping").replace(folder / "swapped")
        stop.wait(0.05)
    for thread in threads:
        thread.join(30)
    assert wrong == []


# -- sources ---------------------------------------------------------------------


@pytest.mark.parametrize(("step_s", "steps"), [(0.0, 8), (0.002, 1)])
def test_a_source_has_a_turn_of_a_millisecond_and_others_have_theirs(step_s, steps):
    taken = []

    def pieces():
        while True:
            until_s = time.monotonic() + step_s
            while time.monotonic() < until_s:
                pass
            taken.append(1)
            yield b"x"

    ours, theirs = socket.socketpair()
    with ours, theirs:
        outbox = Outbox(ours, 1 << 18, lambda _mask: None, Meter())
        outbox.send_source(pieces(), None)
        assert 1 <= len(taken) <= steps
        before = len(taken)
        outbox.send_some()
        assert before < len(taken) <= 2 * steps
        assert len(theirs.recv(100)) == len(taken)
