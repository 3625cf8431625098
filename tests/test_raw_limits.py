"""Idle, silent and stuck clients of handlers that are no HTTP: they stop no pool."""

import contextlib
import resource
import threading
from pathlib import Path

import pytest
from daemon_kit import Gate
from harness import children, wait_until
from raw_kit import Client, ask, raw_site

IDLE = 2000


@pytest.fixture
def site(tmp_path):
    return raw_site(tmp_path)


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * IDLE:
        pytest.skip(f"the hard limit of descriptors is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * IDLE, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def stop(daemon) -> None:
    assert daemon.stop() == 0
    assert "worker.killed" not in daemon.log.text()


def test_2000_idle_clients_do_not_keep_a_new_one_from_its_answer(site, many_descriptors):  # noqa: ARG001 # a fixture for what it does
    site.write(handler="app:Lines", workers=2, linger_timeout="0.3s")
    with site.start() as daemon, contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(Client(daemon.port))
        assert ask(daemon.port, "hello") == "HELLO"
        (pool,) = site.status()["pools"]
        assert sum(worker["busy"] for worker in pool["workers"]) <= 2 * 512
        stack.close()
        assert ask(daemon.port, "hello") == "HELLO"
        stop(daemon)


@pytest.mark.parametrize(
    ("choice", "most"), [("threads", {"threads": 2}), ("fork", {"max_children": 2})]
)
def test_so_many_are_served_at_a_time_as_the_config_says_and_the_others_wait(site, choice, most):
    site.write(handler="app:Lines", concurrency=choice, **most, linger_timeout="1m")
    with site.start() as daemon, contextlib.ExitStack() as stack:
        (worker,) = daemon.workers()
        first, second = (stack.enter_context(Client(daemon.port)) for _ in range(2))
        first.who(), second.who()
        late = [stack.enter_context(Client(daemon.port)) for _ in range(3)]
        for client in late:
            client.say("hello")
        late[0].socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            late[0].hear()
        assert site.workers()[0]["busy"] == 2
        threads = len(list(Path(f"/proc/{worker}/task").iterdir())) - 1
        assert (threads, len(children(worker))) == ((2, 0) if choice == "threads" else (0, 2))
        late[0].socket.settimeout(20)
        for gone, served in zip([first, *late], late, strict=False):
            gone.socket.close()
            assert served.hear() == "HELLO"
        stack.close()
        stop(daemon)


def test_who_has_been_silent_for_longest_goes_first_when_others_want_his_place(site):
    site.write(handler="app:Lines", threads=3, linger_timeout="0.2s")
    with site.start() as daemon, contextlib.ExitStack() as stack:
        silent, half, spoke = (stack.enter_context(Client(daemon.port)) for _ in range(3))
        half.socket.sendall(b"an unfinished li")
        spoke.who()
        late = stack.enter_context(Client(daemon.port))
        assert late.ask("hello") == "HELLO"
        assert silent.hear() == ""
        assert spoke.ask("hello") == "HELLO"
        last = stack.enter_context(Client(daemon.port))
        assert last.ask("hello") == "HELLO"
        assert half.hear() in ("", "AN UNFINISHED LI")  # it has had its time, too
        stop(daemon)


def test_nobody_has_to_go_while_a_handler_works_for_him_or_nobody_waits(site, tmp_path):
    gate = Gate(tmp_path)
    site.write(handler="app:Lines", threads=2, linger_timeout="0.1s")
    with site.start() as daemon, Client(daemon.port) as busy, Client(daemon.port) as idle:
        idle.who()
        busy.say(f"wait {gate.path}")
        held = gate.wait_for_somebody()
        threading.Event().wait(0.4)  # silence itself is what is tested
        assert idle.ask("hello") == "HELLO"
        with Client(daemon.port) as late:
            assert late.ask("hello") == "HELLO"  # it has the idle one's place
            held.let_go()
            assert busy.hear().startswith("WAIT ")
        stop(daemon)


@pytest.mark.parametrize("choice", ["threads", "fork", "none"])
@pytest.mark.parametrize("handler", ["Lines", "Echo"])
def test_after_timeout_a_silent_client_is_let_go(site, choice, handler):
    site.write(handler=f"app:{handler}", concurrency=choice, timeout="0.2s")
    with site.start() as daemon:
        with Client(daemon.port) as silent:
            assert silent.hear() == ""
        with Client(daemon.port) as half:
            half.socket.sendall(b"he")
            wait_until(lambda: half.hear() in ("", "HE"))
        stop(daemon)
    assert "Traceback" not in daemon.log.text()


def test_a_handlers_own_timeout_takes_the_place_of_the_pools(site):
    more = {"handler_options": {"timeout": "1h"}, "timeout": "0.1s", "linger_timeout": 0}
    site.write(handler="app:Lines", **more)
    with site.start() as daemon, Client(daemon.port) as client:
        threading.Event().wait(0.4)  # silence itself is what is tested
        assert client.ask("hello") == "HELLO"
        stop(daemon)


def test_idle_clients_of_workers_that_serve_one_at_a_time_cost_a_timeout_each(site):
    site.write(handler="app:Lines", workers=2, concurrency="none", timeout="50ms")
    with site.start() as daemon, contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(Client(daemon.port))
        assert ask(daemon.port, "hello") == "HELLO"
        stop(daemon)


def test_without_descriptors_for_more_clients_a_worker_leaves_them_in_the_queue(site):
    """A quarter of them, and some, are kept for what handlers open."""
    site.write(
        handler="app:Lines",
        master={"rlimits": {"nofile": 64}},
        linger_timeout="0.3s",
    )
    with site.start() as daemon, contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(Client(daemon.port))
        wait_until(lambda: site.workers()[0]["busy"] == 64 - 16 - 24)
        assert ask(daemon.port, "hello") == "HELLO"
        stack.close()
        assert ask(daemon.port, "hello") == "HELLO"
        stop(daemon)
    assert "worker.short" not in daemon.log.text()
