"""Users, groups, limits and chroot: what a process is afterwards, and what it is told before."""

import grp
import os
import pwd
import resource
import subprocess
import sys
import textwrap

import pytest

from prefork.errors import StartError
from prefork.privileges import acting_as, find_group, find_user, resolve

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

NOBODY = pwd.getpwnam("nobody")
REFUSED = ": started as nobody, and only root may; set no user and group to stay nobody"
PRELUDE = """
import ctypes, os, resource, sys
from prefork.errors import StartError
from prefork.privileges import (
    Identity, apply_rlimits, drop, enter_chroot, resolve, set_no_new_privs)
def show():
    return os.getresuid(), os.getresgid(), sorted(os.getgroups())
def status(name):
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(name + ":"))
def attempt(call, *arguments):
    try:
        call(*arguments)
    except (StartError, OSError) as error:
        print(type(error).__name__, error)
    else:
        print("done")
"""


def run(source: str, *arguments: object) -> str:
    """Return what a process of its own prints."""
    script = PRELUDE + textwrap.dedent(source)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.strip()


def test_nobody_named_is_nobody_to_become():
    assert resolve(None, None) is None


def test_a_user_brings_the_group_of_its_login_and_all_it_is_a_member_of():
    identity = resolve("nobody", None)
    assert (identity.user, identity.uid, identity.gid) == ("nobody", NOBODY.pw_uid, NOBODY.pw_gid)
    assert identity.groups == tuple(sorted(os.getgrouplist("nobody", NOBODY.pw_gid)))
    assert identity.environment() == {
        "HOME": NOBODY.pw_dir,
        "USER": "nobody",
        "LOGNAME": "nobody",
    }


def test_a_group_takes_the_place_of_the_login_group():
    identity = resolve("nobody", "daemon")
    daemon = grp.getgrnam("daemon").gr_gid
    assert identity.gid == daemon
    assert identity.groups == tuple(sorted(set(os.getgrouplist("nobody", daemon))))


def test_a_group_alone_leaves_the_user():
    identity = resolve(None, "daemon")
    assert (identity.uid, identity.gid) == (os.geteuid(), grp.getgrnam("daemon").gr_gid)


def test_numbers_are_users_and_groups_too():
    by_name = resolve("nobody", "daemon")
    assert resolve(str(by_name.uid), str(by_name.gid)) == by_name
    assert find_user("0") == 0
    assert find_group("54321") == 54321


def test_a_number_without_an_account_needs_a_group():
    identity = resolve("54321", "54322")
    assert (identity.uid, identity.gid, identity.groups) == (54321, 54322, (54322,))
    assert identity.environment()["HOME"] == "/"
    with pytest.raises(StartError, match=r"^user 54321 has no account .*: name a group, too$"):
        resolve("54321", None)


@pytest.mark.parametrize(
    ("user", "group", "message"),
    [
        ("nobdy", None, "this system has no user 'nobdy'; did you mean 'nobody'?"),
        ("nobody", "deamon", "this system has no group 'deamon'; did you mean 'daemon'?"),
        ("Zyx.-987", None, "this system has no user 'Zyx.-987'"),
        ("-1", None, "this system has no user '-1'"),
        ("4294967295", None, "this system has no user '4294967295'"),
        ("nobody", "4294967295", "this system has no group '4294967295'"),
    ],
)
def test_what_the_system_does_not_have_is_named(user, group, message):
    with pytest.raises(StartError) as caught:
        resolve(user, group)
    assert str(caught.value) == message


@as_root
def test_root_becomes_a_user_for_good():
    said = run("""
        identity = resolve("nobody", None)
        drop(identity)
        print(show() == ((identity.uid,) * 3, (identity.gid,) * 3, sorted(identity.groups)))
        print({status(name) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")})
        attempt(os.setresuid, -1, 0, -1)
        attempt(os.setgroups, [0])
        """)
    assert said.splitlines() == [
        "True",
        "{'0000000000000000'}",
        "PermissionError [Errno 1] Operation not permitted",
        "PermissionError [Errno 1] Operation not permitted",
    ]


@as_root
def test_supplementary_groups_come_along():
    said = run("""
        drop(Identity("nobody", 54321, 54322, (54322, 54323, 54324), "/"))
        print(*show())
        """)
    assert said == "(54321, 54321, 54321) (54322, 54322, 54322) [54322, 54323, 54324]"


@as_root
def test_who_is_the_user_already_drops_again_without_complaint():
    said = run("""
        drop(resolve("nobody", None))
        drop(resolve("nobody", None))
        # A login older than a membership:
        attempt(drop, Identity("nobody", *os.getresuid()[:1], os.getgid(), (54323,), "/"))
        attempt(drop, resolve("nobody", "daemon"))
        """)
    first, second = said.splitlines()
    assert first == "done"
    assert second.endswith(
        "started as nobody, and only root may; set no user and group to stay nobody"
    )


@as_root
def test_capabilities_that_were_to_outlive_root_do_not():
    said = run("""
        libc = ctypes.CDLL(None)
        assert libc.prctl(28, 0x4 | 0x10, 0, 0, 0) == 0  # PR_SET_SECUREBITS: no fixup, keep caps
        attempt(drop, resolve("nobody", None))
        print(status("CapPrm"), status("CapEff"))
        attempt(os.setuid, 0)
        """)
    assert said.splitlines() == [
        "done",
        "0000000000000000 0000000000000000",
        "PermissionError [Errno 1] Operation not permitted",
    ]


@as_root
def test_the_user_root_stays_root():
    assert run("drop(resolve('root', None)); os.setuid(0); print(os.getresuid())") == "(0, 0, 0)"


@as_root
def test_one_who_is_not_root_is_told_so():
    said = run("""
        drop(resolve("nobody", None))
        attempt(drop, resolve("daemon", None))
        """)
    assert said.startswith("StartError cannot become user daemon (group ")
    assert said.endswith(
        ": started as nobody, and only root may; set no user and group to stay nobody"
    )


@as_root
def test_acting_as_a_user_has_its_rights_and_ends(tmp_path):
    path = tmp_path / "secret"
    path.touch(0o600)
    tmp_path.chmod(0o711)
    before = os.getresuid(), os.getresgid(), os.getgroups()
    with acting_as(NOBODY.pw_uid, NOBODY.pw_gid), pytest.raises(PermissionError):
        path.open()
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    path.open().close()


def test_no_new_privs_reaches_children():
    said = run("""
        print(status("NoNewPrivs"), flush=True)
        set_no_new_privs()
        if os.fork() == 0:
            print(status("NoNewPrivs"), flush=True)
            os._exit(0)
        os.wait()
        print(status("NoNewPrivs"))
        """)
    assert said.split() == ["0", "1", "1"]


def test_limits_are_set_for_good():
    said = run("""
        apply_rlimits({"nofile": 123, "core": 0})
        print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE))
        """)
    assert said == "(123, 123) (0, 0)"


def test_limits_not_for_good_can_be_raised_again():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    said = run("""
        apply_rlimits({"nofile": 123}, for_good=False)
        print(resource.getrlimit(resource.RLIMIT_NOFILE))
        """)
    assert said == f"(123, {hard})"


def test_an_unlimited_limit_has_no_number():
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        pytest.skip("the memory of this process is limited")
    said = run("""
        apply_rlimits({"as": "unlimited"})
        print(resource.getrlimit(resource.RLIMIT_AS))
        """)
    assert said == "(-1, -1)"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"nofiles": 1}, "this system has no resource limit 'nofiles'; did you mean 'nofile'?"),
        ({"core": "much"}, "rlimits: core must be a number or 'unlimited', not 'much'"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(limits, message):
    assert run(f"attempt(apply_rlimits, {limits!r})") == f"StartError {message}"


@as_root
def test_a_limit_that_only_root_may_raise_is_refused_with_the_one_there_is():
    said = run("""
        apply_rlimits({"nofile": 100})
        drop(resolve("nobody", None))
        attempt(apply_rlimits, {"nofile": 200})
        """)
    assert said.startswith("StartError rlimits: cannot set nofile to 200: ")
    assert said.endswith("; the hard limit is 100")


@as_root
def test_a_chroot_is_the_world_and_its_root_the_working_directory(tmp_path):
    (tmp_path / "only").touch()
    said = run("enter_chroot(sys.argv[1]); print(os.listdir('/'), os.getcwd())", tmp_path)
    assert said == "['only'] /"


@as_root
def test_a_chroot_that_is_none_is_refused(tmp_path):
    said = run(
        """
        attempt(enter_chroot, sys.argv[1] + "/nowhere")
        drop(resolve("nobody", None))
        attempt(enter_chroot, "/")
        """,
        tmp_path,
    )
    assert said.splitlines() == [
        f"StartError cannot chroot to {tmp_path}/nowhere: No such file or directory",
        "StartError cannot chroot to /: only root may",
    ]
