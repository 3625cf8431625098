"""Datagrams that were received are handled, each once, whatever becomes of workers.

Each is written down by its handler before it is answered. A stream of numbered ones goes on while
workers are killed, replaced, more or fewer; what is not in the diary afterwards was lost. The
sender lets no more be under way than the socket's buffer holds: none is lost there.
"""

import os
import select
import signal
import socket
import threading
from pathlib import Path

import pytest
from daemon_kit import Gate
from harness import DEADLINE_S, wait_gone, wait_until
from raw_kit import Client, ports, raw_site

UNDER_WAY = 64


class Stream(threading.Thread):
    """Numbers, as datagrams, until the context ends; each answer makes room for another."""

    def __init__(self, at: int | str, lost_at_most: int, rest_s: float = 0.01):
        super().__init__(daemon=True)
        self.sent = 0
        self._client = Client(at, socket.SOCK_DGRAM)
        self._most = UNDER_WAY + lost_at_most
        self._rest_s = rest_s
        self._over = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join(DEADLINE_S)
        self._client.socket.close()

    def run(self):
        answered = 0
        while not self._over.is_set():
            if self.sent - answered < self._most:
                self._client.socket.send(b"%d" % self.sent)
                self.sent += 1
                if self.sent % 8 == 0:
                    self._over.wait(self._rest_s)  # the machine has other work: a start, say
            elif select.select([self._client.socket], [], [], 0.05)[0]:
                self._client.socket.recv(100)
                answered += 1
        while answered < self.sent and select.select([self._client.socket], [], [], 0.3)[0]:
            self._client.socket.recv(100)
            answered += 1


def missing(site, sent: int) -> list[int]:
    handled = list(map(int, (site.folder / "diary").read_text().split()))
    assert len(handled) == len(set(handled)), "one was handled twice"
    assert max(handled) < sent
    return sorted(set(range(sent)) - set(handled))


UDP, UNIX = ["127.0.0.1:0"], ["unix:datagrams.sock"]
each_kind = pytest.mark.parametrize("bind", [UDP, UNIX], ids=["udp", "unix"])


@pytest.fixture
def site(tmp_path):
    return raw_site(tmp_path)


def goes_on(stream: Stream) -> None:
    before = stream.sent
    wait_until(lambda: stream.sent > before + 100)


@each_kind
def test_a_killed_worker_takes_no_more_than_the_one_datagram_in_its_hands_with_it(site, bind):
    kills = 6
    site.write(handler="app:Diary", bind=bind, workers=2)
    with site.start() as daemon:
        with Stream(ports(daemon)[0], lost_at_most=kills) as stream:
            for _ in range(kills):
                goes_on(stream)
                victim = daemon.workers()[0]
                os.kill(victim, signal.SIGKILL)
                wait_gone(victim)
                wait_until(lambda: len(daemon.workers()) == 2)
            goes_on(stream)
        assert daemon.stop() == 0
    assert len(missing(site, stream.sent)) <= kills


def test_a_pool_whose_only_worker_is_killed_goes_on_where_it_was(site):
    site.write(handler="app:Diary", bind=UDP, workers=1)
    with site.start() as daemon:
        with Stream(ports(daemon)[0], lost_at_most=1) as stream:
            goes_on(stream)
            os.kill(daemon.workers()[0], signal.SIGKILL)
            goes_on(stream)
        assert daemon.stop() == 0
    assert len(missing(site, stream.sent)) <= 1


@pytest.mark.parametrize(
    ("bind", "concurrency"), [(UDP, "none"), (UNIX, "none"), (UDP, "threads"), (UNIX, "fork")]
)
def test_a_reload_loses_no_datagram(site, bind, concurrency):
    site.write(handler="app:Diary", bind=bind, workers=2, concurrency=concurrency)
    with site.start() as daemon:
        rest_s = 0.05 if concurrency == "fork" else 0.01
        with Stream(ports(daemon)[0], lost_at_most=0, rest_s=rest_s) as stream:
            goes_on(stream)
            site.order("reload")
            goes_on(stream)
        assert daemon.stop() == 0
    assert missing(site, stream.sent) == []


@each_kind
def test_workers_that_come_and_go_lose_no_datagram(site, bind):
    log = {"log": {"level": "debug", "repeat_burst": 100}}
    site.write(handler="app:Diary", bind=bind, workers=2, max_requests=150, master=log)
    with site.start() as daemon:
        with Stream(ports(daemon)[0], lost_at_most=0) as stream:
            for workers in (4, 1, 3, 2):
                site.order("scale", "main", str(workers))
                goes_on(stream)
            daemon.log.wait_for("worker.died", count=4)
        assert daemon.stop() == 0
    assert missing(site, stream.sent) == []


@each_kind
def test_a_stop_handles_what_was_received_before_it(site, bind):
    site.write(handler="app:Diary", bind=bind, workers=2)
    with site.start() as daemon, Client(ports(daemon)[0], socket.SOCK_DGRAM) as client:
        for pid in daemon.workers():
            os.kill(pid, signal.SIGSTOP)
        for number in range(UNDER_WAY if bind == UDP else 10):  # as many as the kernel keeps
            client.socket.send(b"%d" % number)
        daemon.send(signal.SIGTERM)
        for pid in daemon.workers():
            os.kill(pid, signal.SIGCONT)
        assert daemon.wait() == 0
    assert missing(site, number + 1) == []


def test_a_thread_that_is_stuck_at_a_datagram_costs_its_worker_not_the_pool(site, tmp_path):
    gate = Gate(tmp_path)
    keys = {"concurrency": "threads", "threads": 1, "heartbeat_timeout": "0.5s"}
    site.write(handler="app:Packets", **keys)
    with site.start() as daemon, Client(daemon.port, socket.SOCK_DGRAM) as client:
        (stuck,) = daemon.workers()
        client.say(f"wait {gate.path}")
        gate.wait_for_somebody()
        client.say("hello")  # there is no thread for it, until there is another worker
        assert client.hear() == "HELLO"
        assert daemon.log.wait_for(r"worker\.killed slot=0 pid=(\d+)")[1] == str(stuck)
        daemon.stop()


def test_who_does_not_read_his_answers_does_not_hold_a_worker(site):
    site.write(handler="app:Packets", bind=UNIX, workers=1)
    with site.start() as daemon:
        (at,) = ports(daemon)
        # Not connected: for who is, the kernel has no limit but the worker's send buffer.
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf,
            Client(at, socket.SOCK_DGRAM) as client,
        ):
            deaf.bind("")
            limit = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
            for _ in range(limit + 5):  # more than its own queue holds
                deaf.sendto(b"hello", at)
            assert client.ask("hello") == "HELLO"
        assert "Traceback" not in daemon.log.text()
        daemon.stop()
