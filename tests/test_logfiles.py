"""Log files: opened once, reopened after a rotation, in all processes, whoever they have become."""

import contextlib
import fcntl
import os
import pwd
import select
import selectors
import signal
import stat
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from harness import DEADLINE_S, wait_gone

from prefork.errors import StartError
from prefork.http.access import AccessLog, Entry
from prefork.logs.files import STANDARD, LogFiles
from prefork.logs.relay import ANSWER_S, Relay
from prefork.privileges import drop, resolve

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOBODY = pwd.getpwnam("nobody")


def descriptors():
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}


@pytest.fixture(autouse=True)
def nothing_left_open():
    before = descriptors()
    yield
    for fd in descriptors() - before:
        with contextlib.suppress(OSError):  # the one that listed
            os.fstat(fd)
            pytest.fail(f"left open: {fd}: {Path(f'/proc/self/fd/{fd}').readlink()}")


@pytest.fixture
def make():
    """Make LogFiles whose descriptors are closed at the end."""
    made = []

    def new(inherited=None):
        made.append(LogFiles(inherited))
        return made[-1]

    yield new
    for fd in {fd for files in made for fd in files.handover().values()}:
        os.close(fd)


@pytest.fixture
def files(make):
    return make()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.log"


@pytest.fixture
def public():
    """A directory that everybody may enter, and root's alone."""
    with tempfile.TemporaryDirectory(prefix="prefork-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def write(file, text):
    os.write(file.fd, text.encode())


def test_a_new_file_has_the_mode_that_is_wanted_whatever_the_umask(files, path):
    old = os.umask(0o077)
    try:
        file = files.open(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not os.get_inheritable(file.fd)
    assert os.get_blocking(file.fd)


def test_a_file_that_is_there_is_appended_to_and_keeps_its_mode(files, path):
    path.write_text("before\n")
    path.chmod(0o604)
    file = files.open(path)
    path.write_text("")  # copytruncate
    write(file, "after\n")
    assert path.read_text() == "after\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_one_path_is_one_file(files, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    assert files.open(path) is files.open("some.log")


def test_after_a_rotation_the_same_number_writes_to_the_new_file(files, path):
    file = files.open(path)
    write(file, "one\n")
    path.rename(path.with_suffix(".1"))
    write(file, "two\n")
    assert files.reopen() == []
    write(file, "three\n")
    assert path.with_suffix(".1").read_text() == "one\ntwo\n"
    assert path.read_text() == "three\n"
    assert not os.get_inheritable(file.fd)


def test_what_cannot_be_reopened_stays_and_is_reported(files, tmp_path, caplog):
    folder = tmp_path / "folder"
    folder.mkdir()
    lost, fine = files.open(folder / "lost.log"), files.open(tmp_path / "fine.log")
    folder.rename(tmp_path / "moved")
    (tmp_path / "fine.log").unlink()
    assert files.reopen() == [f"cannot reopen {lost.path}: No such file or directory"]
    assert caplog.messages == [
        f'log.not_reopened path={lost.path} reason="No such file or directory"'
    ]
    write(lost, "on\n")
    write(fine, "new\n")
    assert (tmp_path / "moved" / "lost.log").read_text() == "on\n"
    assert (tmp_path / "fine.log").read_text() == "new\n"


def test_what_was_open_before_an_exec_is_not_opened_again(files, make, tmp_path):
    kept, gone = files.open(tmp_path / "kept.log"), files.open(tmp_path / "gone.log")
    handover = {path: os.dup(fd) for path, fd in files.handover().items()}
    for fd in handover.values():
        os.set_inheritable(fd, True)
    (tmp_path / "kept.log").rename(tmp_path / "renamed.log")
    after = make(handover)
    assert after.open(kept.path).fd == handover[kept.path]
    after.close_unused()
    assert not os.get_inheritable(handover[kept.path])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handover[gone.path])
    assert not (tmp_path / "kept.log").exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("folder", "Is a directory"),
        ("none/some.log", "No such file or directory"),
        ("dangling", "a link to a file that is not there"),
        ("fifo", "No such device or address"),
    ],
)
def test_what_cannot_be_a_log_is_refused(files, tmp_path, name, why):
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nothing")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StartError) as caught:
        files.open(tmp_path / name)
    assert str(caught.value) == f"cannot open the log {tmp_path / name}: {why}"
    assert not (tmp_path / "nothing").exists()


def test_a_link_is_followed_as_containers_need_it(files, tmp_path):
    ours, theirs = os.pipe()
    (tmp_path / "access.log").symlink_to(f"/proc/self/fd/{theirs}")
    write(files.open(tmp_path / "access.log"), "line\n")
    assert os.read(ours, 99) == b"line\n"
    os.close(ours)
    os.close(theirs)


def test_no_link_is_followed_where_anybody_may_put_one(files, tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "some.log").symlink_to("victim")
    tmp_path.chmod(0o1777)
    with pytest.raises(StartError, match="Too many levels of symbolic links"):
        files.open(tmp_path / "some.log")
    assert (tmp_path / "victim").read_text() == "precious"


# Root, and whom it serves as


@as_root
def test_a_new_file_in_roots_directory_is_the_users_it_will_serve_as(files, public):
    nobody = resolve("nobody", "daemon")
    files.open(public / "some.log", 0o600, nobody)
    found = (public / "some.log").stat()
    assert (found.st_uid, found.st_gid) == (nobody.uid, nobody.gid)
    assert stat.S_IMODE(found.st_mode) == 0o600


@as_root
def test_a_file_that_is_there_is_given_to_nobody(files, public):
    (public / "some.log").touch()
    files.open(public / "some.log", 0o600, resolve("nobody"))
    assert (public / "some.log").stat().st_uid == 0


@as_root
@pytest.mark.parametrize("at", ["theirs/some.log", "theirs/sub/some.log", "link/some.log"])
def test_root_is_not_led_to_its_own_files_by_a_user_in_whose_directory_it_logs(files, public, at):
    secret = public / "root"
    secret.mkdir(0o755)
    (secret / "some.log").touch(0o600)
    theirs = public / "theirs"
    theirs.mkdir()
    (theirs / "sub").symlink_to(secret)
    (theirs / "some.log").symlink_to(secret / "some.log")
    os.chown(theirs, NOBODY.pw_uid, -1)
    (public / "link").symlink_to(theirs)
    with pytest.raises(StartError, match=r"some\.log: Permission denied \(as user nobody\)$"):
        files.open(public / at)
    assert (os.geteuid(), os.getegid()) == (0, 0)


@as_root
def test_a_new_file_in_a_users_directory_is_the_users(files, public):
    os.chown(public, NOBODY.pw_uid, -1)
    files.open(public / "some.log", 0o640, resolve("daemon"))
    found = (public / "some.log").stat()
    assert (found.st_uid, found.st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert stat.S_IMODE(found.st_mode) == 0o640


def in_a_child(main):
    """Run main in a process of its own; its result as text."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = str(main())
        except BaseException as error:
            text = repr(error)
        os.write(theirs, text.encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


@as_root
def test_a_master_that_has_dropped_reopens_what_logrotate_has_made(files, public):
    file = files.open(public / "some.log", 0o640, resolve("nobody"))

    def master():
        drop(resolve("nobody"))
        before = files.reopen()
        write(file, "new\n")
        return before

    (public / "some.log").rename(public / "some.log.1")
    (public / "some.log").touch(0o640)
    os.chown(public / "some.log", NOBODY.pw_uid, NOBODY.pw_gid)  # what `create` does
    assert in_a_child(master) == "[]"
    assert (public / "some.log").read_text() == "new\n"


@as_root
def test_a_master_that_has_dropped_and_may_not_says_as_whom_and_loses_nothing(files, public):
    file = files.open(public / "some.log", 0o640, resolve("nobody"))

    def master():
        drop(resolve("nobody"))
        problems = files.reopen()
        write(file, "still\n")
        return problems

    (public / "some.log").rename(public / "some.log.1")
    assert in_a_child(master) == str(
        [f"cannot reopen {file.path}: Permission denied (as user nobody)"]
    )
    assert (public / "some.log.1").read_text() == "still\n"


# The workers


class Master:
    """What a master has: a loop, files, lines to its workers."""

    def __init__(self, files):
        self.files = files
        self.selector = selectors.DefaultSelector()
        self.relay = Relay(
            lambda fd, call: self.selector.register(fd, selectors.EVENT_READ, call),
            self.selector.unregister,
        )
        self.answers = []
        self.workers = {}

    def start(self, slot, main):
        line = self.relay.open(slot)
        pid = os.fork()
        if pid == 0:
            try:
                self.relay.leave()
                main(line)
                os._exit(0)
            finally:
                os._exit(1)
        line.close()
        self.workers[slot] = pid

    def turn(self, wait_s=DEADLINE_S):
        for key, _ in self.selector.select(wait_s):
            key.data()

    def reopen(self):
        """Reopen; return what the relay says once it does."""
        assert self.files.reopen() == []
        self.answers.clear()
        self.relay.send(self.files.handover(), self.answers.append)
        while not self.answers:
            self.turn()
        return self.answers[0]

    def end(self):
        """Let workers see that the master has gone, and end."""
        self.relay.leave()
        for pid in self.workers.values():
            wait_gone(pid)
            assert os.waitpid(pid, 0)[1] == 0
        self.workers.clear()


@pytest.fixture
def master(files):
    it = Master(files)
    yield it
    it.end()
    it.selector.close()


def take_all(files, line):
    """Be a worker that does nothing else, until its master has gone."""
    while files.take(line):
        select.select([line], [], [])


def entry(text):
    return Entry("h", "-", text, 200, 1, 0.0, 0.0, "", "", "GET", "/", "HTTP/1.1")


def serving(files, access_fd, each=lambda: None):
    """Return a worker's main: its loop with the line, and an access log."""

    def main(line):
        access = AccessLog(access_fd, "common")
        while True:
            readable, _, _ = select.select([line], [], [], 0)
            if readable:
                access.flush()
                if not files.take(line):
                    break
                access.reopen(access_fd)
            access.add(entry("line"))
            each()
        access.close()

    return main


def test_workers_write_to_the_new_files_when_the_master_says_it_is_done(master, files, tmp_path):
    path, other = tmp_path / "access.log", tmp_path / "other.log"
    file = files.open(path)
    files.open(other)
    for slot in range(3):
        master.start(slot, serving(files, file.fd))
    for number in range(5):
        path.rename(tmp_path / f"access.{number}")
        assert master.reopen() is None
        size = (tmp_path / f"access.{number}").stat().st_size
        while not path.stat().st_size:
            os.sched_yield()
        assert (tmp_path / f"access.{number}").stat().st_size == size


def write_with_threads(files, file, line, told):
    """Be a worker whose three threads log until the master goes; tell how much each has."""
    access = AccessLog(file.fd, "common")
    counts = [0] * 3
    over = threading.Event()

    def write_on(number):
        while not over.is_set():
            counts[number] += 1
            access.add(entry(f"{number} {counts[number]}"))
            if counts[number] % 7 == 0:
                access.flush()

    threads = [threading.Thread(target=write_on, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    while True:
        select.select([line], [], [])
        access.flush()
        if not files.take(line):
            break
        access.reopen(file.fd)
    over.set()
    for thread in threads:
        thread.join()
    access.close()
    told.write_text(" ".join(map(str, counts)))


def test_no_line_is_lost_or_torn_while_threads_write_and_files_change(master, files, tmp_path):
    path, told = tmp_path / "access.log", tmp_path / "counts"
    file = files.open(path)
    master.start(0, lambda line: write_with_threads(files, file, line, told))
    for number in range(50):
        while not path.stat().st_size:
            os.sched_yield()
        path.rename(tmp_path / f"access.{number}")
        assert master.reopen() is None
    master.end()
    counts = list(map(int, told.read_text().split()))
    found = [
        line.split('"')[1]
        for name in tmp_path.glob("access.*")
        for line in name.read_text().splitlines()
    ]
    assert sorted(found) == sorted(f"{n} {m + 1}" for n in range(3) for m in range(counts[n]))


@as_root
def test_a_worker_in_a_chroot_and_another_user_gets_the_new_file(master, files, public):
    path = public / "access.log"
    file = files.open(path, 0o600)
    (public / "empty").mkdir()

    def main(line):
        os.chroot(public / "empty")
        drop(resolve("54321", "54321"))
        take_all(files, line)
        write(file, "from inside\n")

    master.start(0, main)
    path.unlink()
    assert master.reopen() is None
    master.end()
    assert path.read_text() == "from inside\n"


def test_a_worker_that_does_not_know_a_file_leaves_its_numbers_alone(master, files, make, tmp_path):
    known = files.open(tmp_path / "known.log")
    later = make()
    reading, writing = os.pipe()

    def main(line):
        mine = os.open("/dev/null", os.O_RDWR)  # has the number that the new file has there
        before = descriptors()
        take_all(files, line)
        assert descriptors() == before  # with the one that lists, in both
        for fd in mine, known.fd:
            os.write(writing, bytes(Path(f"/proc/self/fd/{fd}").readlink()) + b"\n")

    master.start(0, main)
    new = later.open(tmp_path / "new.log")
    (tmp_path / "known.log").rename(tmp_path / "old.log")
    files.reopen()
    master.relay.send({new.path: new.fd} | files.handover(), master.answers.append)
    while not master.answers:
        master.turn()
    assert master.answers == [None]
    master.end()
    os.close(writing)
    with os.fdopen(reading) as said:
        assert said.read().splitlines() == ["/dev/null", known.path]


def test_standard_streams_can_be_sent_and_survive_exec(master):
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)

    def main(line):
        take_all(master.files, line)
        source = (
            "import os\n"
            "for fd in 0, 1, 2:\n"
            f"    os.write({writing}, os.readlink(b'/proc/self/fd/%d' % fd) + b'\\n')"
        )
        os.execv(sys.executable, [sys.executable, "-c", source])

    master.start(0, main)
    null = os.open("/dev/null", os.O_RDWR)
    master.relay.send(dict.fromkeys(STANDARD, null), master.answers.append)
    while not master.answers:
        master.turn()
    os.close(null)
    master.end()
    os.close(writing)
    with os.fdopen(reading) as said:
        assert said.read().splitlines() == ["/dev/null"] * 3


def test_a_worker_that_ends_is_not_waited_for(master, files, path):
    files.open(path)
    master.start(0, lambda line: select.select([line], [], []))
    assert master.reopen() is None
    assert master.relay.handover() == {}


def test_a_worker_that_is_closed_by_its_master_is_not_waited_for(master, files, path):
    files.open(path)
    master.start(0, serving(files, 2, signal.pause))
    master.relay.send(files.handover(), master.answers.append)
    os.kill(master.workers[0], signal.SIGKILL)
    os.waitpid(master.workers.pop(0), 0)
    master.relay.close(0)
    assert master.answers == [None]
    master.relay.close(0)


def test_without_workers_it_is_done_at_once(master):
    master.relay.send({}, master.answers.append)
    assert master.answers == [None]
    assert master.relay.due_s is None


def test_busy_workers_are_named_and_do_it_later(master, files, path, monkeypatch):
    file = files.open(path)
    for slot in (3, 7):
        master.start(slot, serving(files, file.fd))
        os.kill(master.workers[slot], signal.SIGSTOP)
        os.waitpid(master.workers[slot], os.WUNTRACED)
    path.rename(path.with_suffix(".1"))
    files.reopen()
    master.relay.send(files.handover(), master.answers.append)
    now_s = time.monotonic()
    assert now_s < master.relay.due_s <= now_s + ANSWER_S
    master.relay.expire()
    assert master.answers == []
    monkeypatch.setattr("time.monotonic", lambda: now_s + ANSWER_S + 1)
    master.relay.expire()
    assert master.answers == ["still in the old files, for they are busy: workers in slots 3, 7"]
    assert master.relay.due_s is None
    monkeypatch.undo()
    for pid in master.workers.values():
        os.kill(pid, signal.SIGCONT)
    assert master.reopen() is None  # a late answer is not taken for this one's


def test_two_that_ask_at_a_time_both_get_the_answer(master, files, path):
    file = files.open(path)
    master.start(0, serving(files, file.fd))
    master.relay.send(files.handover(), master.answers.append)
    master.relay.send(files.handover(), master.answers.append)
    while len(master.answers) < 2:
        master.turn()
    assert master.answers == [None, None]


def test_a_stopped_worker_that_is_sent_ever_more_does_not_stop_the_master(master, files, path):
    file = files.open(path)
    master.start(0, serving(files, file.fd))
    os.kill(master.workers[0], signal.SIGSTOP)
    os.waitpid(master.workers[0], os.WUNTRACED)
    for _ in range(2000):
        master.relay.send(files.handover(), master.answers.append)
    assert master.answers == []
    os.kill(master.workers[0], signal.SIGCONT)
    master.turn()
    assert master.reopen() is None


def test_lines_live_through_an_exec(master, files, path):
    file = files.open(path)
    master.start(4, serving(files, file.fd))
    handover = {slot: os.dup(fd) for slot, fd in master.relay.handover().items()}
    master.relay.leave()
    selector = selectors.DefaultSelector()
    master.selector.close()
    master.selector = selector
    master.relay = Relay(
        lambda fd, call: selector.register(fd, selectors.EVENT_READ, call),
        selector.unregister,
        handover,
    )
    assert not os.get_inheritable(handover[4])
    path.rename(path.with_suffix(".1"))
    assert master.reopen() is None


def test_a_workers_end_is_not_left_in_other_programs(master):
    line = master.relay.open(0)
    assert fcntl.fcntl(line, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert not line.getblocking()
    line.close()
