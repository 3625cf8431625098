"""The commands: words, exit statuses, one line for each error."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from control_rig import DEADLINE_S, asking, rig_at, status

from prefork.commands import COMMANDS, Tools, is_command, run
from prefork.control import finding
from prefork.control.places import found_control_paths
from prefork.errors import PreforkError, UsageError


def broken(config, *_):
    raise PreforkError(f"{config}: a: wrong\n{config}: b: wrong")


def tools(**calls):
    """Return tools of which each is broken that is not given."""
    given = dict.fromkeys(("control", "check", "show", "install_service"), broken)
    return Tools(**(given | {"reference": lambda: "keys\n"} | calls))


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """A user's own runtime directory: /run/prefork is the machine's, and may be in use."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr(
        finding,
        "found_control_paths",
        lambda uid: [p for p in found_control_paths(uid) if p.is_relative_to(folder)],
    )
    return folder


@pytest.fixture
def rig(tmp_path):
    with rig_at(tmp_path / "s") as rig:
        yield rig


def at(rig):
    return ["--socket", str(rig.path)]


def errors(capsys):
    """Return the lines on stderr, each without what is before the reason."""
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.startswith("prefork: error: ") for line in err.splitlines())
    return [line.removeprefix("prefork: error: ") for line in err.splitlines()]


def test_the_commands_are_known_by_the_first_word():
    assert list(COMMANDS) == [
        "check",
        "show",
        "status",
        "top",
        "reload",
        "stop",
        "scale",
        "reopen-logs",
        "kill-worker",
        "install-service",
    ]
    assert all(is_command([name, "more"]) for name in COMMANDS)
    assert not any(map(is_command, [[], ["./status"], ["--verbose", "status"], ["web.toml"]]))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_what_a_command_does(name, capsys):
    with pytest.raises(SystemExit) as caught:
        run([name, "--help"], tools())
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: prefork {name} ")
    assert COMMANDS[name] in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("status --jsn", "unrecognized arguments: --jsn (prefork status --help lists"),
        ("status --js", "unrecognized arguments: --js "),
        ("status a.toml b.toml", "unrecognized arguments: b.toml "),
        ("status a.toml --socket s", "two masters: a.toml and --socket s"),
        ("check", "the following arguments are required: CONFIG "),
        ("show", "prefork show takes a CONFIG or --reference"),
        ("show a.toml --reference", "prefork show takes a CONFIG or --reference"),
        ("scale", "the following arguments are required: POOL, N "),
        ("scale web --socket s", "the following arguments are required: N "),
        ("scale web many --socket s", "N must be a number from 1 to 1024, not 'many'"),
        ("scale web 0 --socket s", "N must be a number from 1 to 1024, not '0'"),
        ("scale web 1025 --socket s", "N must be a number from 1 to 1024, not '1025'"),
        ("scale web ²", "N must be a number from 1 to 1024, not '²'"),
        ("kill-worker a.toml", "SLOT must be a number from 0 to 1023, not 'a.toml'"),
        ("kill-worker 1024", "SLOT must be a number from 0 to 1023, not '1024'"),
        ("top --interval 0", "--interval must be 0.1 to 3600 seconds, not '0'"),
        ("top --interval nan", "--interval must be 0.1 to 3600 seconds, not 'nan'"),
        ("top --interval soon", "--interval must be 0.1 to 3600 seconds, not 'soon'"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_status_2(capsys, words, reason):
    assert run(words.split(), tools()) == 2
    (line,) = errors(capsys)
    assert line.startswith(reason)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("reload", ("reload",)),
        ("scale web 4", ("scale", "web", 4)),
        ("reopen-logs", ("reopen_logs",)),
        ("kill-worker 3", ("kill_worker", 3)),
    ],
)
def test_a_command_ends_when_it_is_done_and_says_nothing(rig, capfd, words, asked):
    with asking(run, [*words.split(), *at(rig)], tools()) as outcome:
        what, done = rig.overseer.next()
        assert what == asked
        rig.turns(3)
        assert outcome == []
        rig.call(lambda: done(None))
    assert outcome == [0]
    assert capfd.readouterr() == ("", "")


def test_why_it_is_not_done_is_printed_line_by_line_with_status_1(rig, capsys):
    rig.overseer.at_once = PreforkError("a.toml: x: \x1b[2J\na.toml: y: no")
    assert run(["reload", *at(rig)], tools()) == 1
    assert errors(capsys) == ["a.toml: x: \\x1b[2J", "a.toml: y: no"]


def test_options_may_stand_between_the_words(rig):
    rig.overseer.at_once = "done"
    assert run(["scale", "web", *at(rig), "4"], tools()) == 0
    assert rig.overseer.next()[0] == ("scale", "web", 4)


@pytest.mark.parametrize("now", [False, True])
def test_stop_waits_for_the_end(rig, now, monkeypatch, capsys):
    monkeypatch.setattr("prefork.control.remote._LAST_WORDS_S", 0.05)
    words = ["stop", *at(rig), *["--now"] * now]
    with asking(run, words, tools()) as outcome:
        assert rig.overseer.next()[0] == ("stop", now)
        rig.turns(3)
        assert outcome == []
        rig.call(rig.control.close)  # this process goes on, and that is told
    assert outcome == [1]
    assert errors(capsys)[0].endswith(f"process {os.getpid()} runs on")


def test_status_prints_a_table_or_json(rig, capsys):
    assert run(["status", *at(rig)], tools()) == 0
    assert capsys.readouterr().out.splitlines()[2].split() == ["POOL", "WORKERS", "BUSY", "AT"]
    assert run(["status", "--json", *at(rig)], tools()) == 0
    assert json.loads(capsys.readouterr().out) == status(2)


def test_a_status_of_another_version_is_an_error_but_json_shows_it(rig, capsys):
    rig.overseer.status = lambda: {"config": "x", "version": "9"}
    assert run(["status", *at(rig)], tools()) == 1
    assert errors(capsys)[0].startswith("the master is of another version (")
    assert run(["status", "--json", *at(rig)], tools()) == 0
    assert json.loads(capsys.readouterr().out) == {"config": "x", "version": "9"}


def test_check_show_and_install_service_print_what_they_are_given(capsys):
    given = tools(
        check=lambda config: f"{config} is fine",
        show=lambda config: f"shown {config}\n",
        install_service=lambda config, write, now: f"units {config} {write} {now}",
    )
    assert run(["check", "a.toml"], given) == 0
    assert run(["show", "a.toml"], given) == 0
    assert run(["show", "--reference"], given) == 0
    assert run(["install-service", "a.toml"], given) == 0
    assert run(["install-service", "--write", "a.toml"], given) == 0
    assert run(["install-service", "/srv/share", "--now"], given) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a.toml is fine",
        "shown a.toml",
        "keys",
        "units a.toml False False",
        "units a.toml True False",
        "units /srv/share False True",
    ]


@pytest.mark.parametrize("name", ["check", "show", "install-service"])
def test_a_wrong_config_is_a_line_for_each_problem(name, capsys):
    assert run([name, "a.toml"], tools()) == 1
    assert errors(capsys) == ["a.toml: a: wrong", "a.toml: b: wrong"]


def test_errors_keep_their_exit_status(capsys):
    def misused(config):
        raise UsageError(f"no such file: {config}")

    def unwritable(*_):
        raise PermissionError(13, "Permission denied", "/etc/systemd")

    assert run(["check", "a"], tools(check=misused)) == 2
    assert run(["install-service", "a"], tools(install_service=unwritable)) == 1
    assert errors(capsys) == ["no such file: a", "[Errno 13] Permission denied: '/etc/systemd'"]


# -- whose master -------------------------------------------------------------


def test_a_config_names_its_masters_socket(rig):
    assert run(["status", "a.toml"], tools(control=lambda _: str(rig.path))) == 0


def test_a_broken_config_still_leads_to_its_master(rig, tmp_path, capsys):
    config = tmp_path / "a.toml"
    config.write_text('[master]\ncontrol = "s"\nunknown = 1\n')
    rig.overseer.at_once = PreforkError(f"{config}: master.unknown: no such key")
    assert run(["reload", str(config)], tools()) == 1
    assert errors(capsys) == [f"{config}: master.unknown: no such key"]


def test_a_config_that_is_no_toml_leads_to_the_default_place(tmp_path, runtime):
    config = tmp_path / "web.toml"
    config.write_text("[[[")
    with rig_at(runtime / "prefork" / "web" / "control.sock") as rig:
        rig.overseer.config = str(config)
        assert run(["status", str(config)], tools()) == 0


@pytest.mark.parametrize("text", ["", "[master]\n", "master = 1\n", '[master]\ncontrol = "${S}"'])
def test_a_config_without_a_word_on_it_leads_to_the_default_place(tmp_path, runtime, text):
    config = tmp_path / "web.toml"
    config.write_text(text)
    with rig_at(runtime / "prefork" / "web" / "control.sock") as rig:
        rig.overseer.config = str(config)
        assert run(["status", str(config)], tools()) == 0
        assert run(["status", str(config)], tools(control=lambda _: None)) == 0


def test_a_config_without_control_socket_is_said_to_be_so(capsys):
    assert run(["status", "a.toml"], tools(control=lambda _: "off")) == 1
    assert errors(capsys) == ["a.toml has no control socket: control is off"]


@pytest.mark.usefixtures("runtime")
def test_a_config_that_is_not_there_is_status_2(tmp_path, capsys):
    config = tmp_path / "prefrok.toml"
    assert run(["status", str(config)], tools()) == 2
    assert errors(capsys) == [f"no such file: {str(config)!r}"]
    config.touch()
    assert run(["status", str(config)], tools()) == 1
    assert errors(capsys)[0].startswith(f"no master of {config} runs: nothing at ")


def test_without_config_the_only_master_is_meant(runtime, capsys):
    assert run(["status"], tools()) == 1
    assert errors(capsys)[0].startswith("no master runs in the default places")
    with rig_at(runtime / "prefork" / "web" / "control.sock"):
        assert run(["status"], tools()) == 0


def test_ctrl_c_while_it_waits_is_status_130_and_no_traceback(rig):
    program = "import sys; from prefork.commands import *; sys.exit(run(sys.argv[1:], None))"
    command = [sys.executable, "-c", program, "reload", *at(rig)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        rig.overseer.next()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == (
            "prefork: error: interrupted; what the master has begun goes on\n"
        )
        assert process.wait(DEADLINE_S) == 130


def test_a_socket_that_is_not_ours_is_told_from_one_that_is_not_there(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(["status", "--socket", str(tmp_path / "none")], tools()) == 1
    assert run(["status", "--socket", str(tmp_path / "file")], tools()) == 1
    assert run(["status", "--socket", "x" * 200], tools()) == 1
    assert [line.partition(": ")[2] for line in errors(capsys)] == [
        "nothing is there; does it run?",
        "nobody listens there any more",
        "AF_UNIX path too long",
    ]
    assert Path(tmp_path / "file").exists()
