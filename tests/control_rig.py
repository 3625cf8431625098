"""A master's loop in a thread, with a control socket, for tests that ask it."""

import os
import queue
import selectors
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

from prefork.control.places import open_control
from prefork.control.server import Control
from prefork.errors import PreforkError

DEADLINE_S = 20.0


class Overseer:
    """Notes what it is asked, and says done when the test does."""

    def __init__(self):
        self.asked = queue.SimpleQueue()
        self.workers = 2
        self.statuses = 0
        self.at_once = None
        self.config = "/etc/prefork/web.toml"

    def status(self):
        self.statuses += 1
        return status(self.workers, config=self.config)

    def reload(self, done):
        self._note(("reload",), done)

    def stop(self, *, now):
        self._note(("stop", now), None)

    def scale(self, pool, workers, done):
        self._note(("scale", pool, workers), done)

    def reopen_logs(self, done):
        self._note(("reopen_logs",), done)

    def kill_worker(self, slot, done):
        self._note(("kill_worker", slot), done)

    def _note(self, what, done):
        if isinstance(self.at_once, Exception):
            raise self.at_once
        self.asked.put((what, done))
        if self.at_once == "done":
            done(None)

    def next(self):
        return self.asked.get(timeout=DEADLINE_S)


def status(workers, config="/etc/prefork/web.toml"):
    return {
        "version": "1",
        "pid": os.getpid(),
        "config": config,
        "generation": 1,
        "started_s": 0.0,
        "state": "serving",
        "reason": None,
        "pools": [
            {
                "name": "web",
                "at": ["[::]:8000"],
                "wanted": workers,
                "workers": [worker(slot) for slot in range(workers)],
            }
        ],
    }


def worker(slot, **fields):
    return {
        "slot": slot,
        "pid": 1000 + slot,
        "generation": 1,
        "state": "serving",
        "age_s": 1.5,
        "requests": 10,
        "bytes": 4096,
        "busy": 1,
        "request": "GET /" + "x" * 600,
        "request_age_s": 0.5,
        "memory_bytes": 1 << 20,
    } | fields


class Rig:
    """A master's loop in a thread; what must run in it goes through `call`."""

    def __init__(self, path):
        self.path = Path(path)
        self.overseer = Overseer()
        self.now_s = 0.0
        self.broken = None
        self._calls = queue.SimpleQueue()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_r, selectors.EVENT_READ, self._wake)
        self._open = True
        self.control = self.new(open_control(self.path))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def new(self, listener):
        return Control(listener, self.overseer, self._watch, self._forget, lambda: self.now_s)

    def _watch(self, fd, callback):
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def _forget(self, fd):
        self._selector.unregister(fd)

    def _wake(self):
        os.read(self._wake_r, 1)
        answer, function = self._calls.get()
        answer.put(function())

    def _run(self):
        try:
            while self._open:
                for key, _ in self._selector.select():
                    key.data()
                self.control.tick()
        except BaseException as error:
            self.broken = error

    def call(self, function):
        """Return what a function returns that runs in the loop, in a turn of its own."""
        answer = queue.SimpleQueue()
        self._calls.put((answer, function))
        os.write(self._wake_w, b"w")
        return answer.get(timeout=DEADLINE_S)

    def turns(self, count=1):
        for _ in range(count):
            self.call(lambda: None)

    def pass_s(self, seconds):
        self.now_s += seconds
        self.turns(2)

    def end(self):
        self.call(lambda: setattr(self, "_open", False))
        self._thread.join(DEADLINE_S)
        self.control.close()
        self._selector.close()
        os.close(self._wake_r)
        os.close(self._wake_w)
        assert self.broken is None

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.path))  # blocking: with a timeout it would not wait for a place
        client.settimeout(DEADLINE_S)
        return client


@contextmanager
def rig_at(path):
    rig = Rig(path)
    try:
        yield rig
    finally:
        rig.end()


@contextmanager
def asking(function, *args, **kwargs):
    """Run a blocking call beside the test; yields a list that has its outcome at the end."""
    outcome = []

    def run():
        try:
            outcome.append(function(*args, **kwargs))
        except PreforkError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield outcome
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
