"""Config files: what is read, and what is said of everything that is wrong."""

import dataclasses
import os
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from prefork.config import (
    Config,
    ConfigError,
    LimitsConfig,
    ListenerConfig,
    Place,
    Scale,
    load,
    parse_address,
)
from prefork.config.kind import settings_of
from prefork.config.known import HandlerOptions
from prefork.config.master import LogConfig, MasterConfig
from prefork.config.server import ServerConfig
from prefork.config.show import reference, reference_markdown, show
from prefork.http.limits import Limits

POOL = '[server.a]\nbind = ["*:8000"]\nhandler = "m:H"\n'
ETC = Path(__file__).parent.parent / "etc"
ENVIRON = {"HOME": "/root", "MANY": "lots"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Names in messages are those that were given: here relative ones."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(files: dict[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def read(text: str, environ: dict[str, str] = ENVIRON) -> Config:
    write({"good.toml": text})
    return load("good.toml", environ)


def pool(lines: str = "", environ: dict[str, str] = ENVIRON) -> ServerConfig:
    return read(POOL + lines, environ).servers["a"]


def problems_of(text: str | dict[str, str], environ: dict[str, str] = ENVIRON) -> list[str]:
    write(text if isinstance(text, dict) else {"bad.toml": text})
    with pytest.raises(ConfigError) as caught:
        load("bad.toml", environ)
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert caught.value.exit_status == 1
    return caught.value.problems


# -- what is wrong -------------------------------------------------------------


def broken() -> list[tuple[str, str, list[str]]]:
    """Return (name, TOML, problems) of each broken config."""
    text = (Path(__file__).parent / "config" / "bad.txt").read_text()
    found = []
    for block in text.split("\n## ")[1:]:
        name, *lines = block.rstrip("\n").split("\n")
        toml = [POOL.rstrip() if line == "@pool" else line for line in lines if line[:3] != "=> "]
        problems = [line[3:] for line in lines if line[:3] == "=> "]
        found.append((name, "".join(f"{line}\n" for line in toml), problems))
    return found


@pytest.mark.parametrize(("name", "text", "problems"), broken(), ids=[case[0] for case in broken()])
def test_a_broken_config_is_answered_by_these_lines(name, text, problems):
    assert problems_of(text) == [f"bad.toml: {problem}" for problem in problems], name


def test_there_are_many_broken_configs():
    assert len(broken()) >= 100
    assert len({name for name, _, _ in broken()}) == len(broken())


def test_all_that_is_wrong_is_said_at_once_also_across_included_files():
    files = {
        "bad.toml": 'include = ["conf.d/*.toml"]\n[master]\numask = 22\n' + POOL + "worker = 2\n",
        "conf.d/a.toml": '[server.b]\nbind = ["8000"]\n',
        "conf.d/b.toml": "[server.c\n",
        "conf.d/c.toml": '[server.a]\nthreads = "4"\nhandler = "m:I"\n',
    }
    assert problems_of(files) == [
        "conf.d/b.toml: line 1, column 10: no TOML: expected ']' at the end of a table declaration",
        "conf.d/c.toml: server.a.handler: given already in bad.toml, expected once",
        (
            "bad.toml: master.umask: found 22: it is a decimal number, expected permissions such as"
            " 0o660; did you mean 0o22?"
        ),
        "bad.toml: server.a.worker: unknown key; did you mean 'workers'?",
        (
            'conf.d/c.toml: server.a.threads: found "4", expected a whole number from 0 to 4096;'
            " did you mean 4?"
        ),
        (
            'conf.d/a.toml: server.b.bind[0]: found "8000": it is a port alone, expected an address'
            ' such as "*:8000", "[::1]:8000", "unix:/PATH", "systemd:NAME" or a table;'
            ' did you mean "*:8000"?'
        ),
    ]


def test_what_may_be_in_a_file_that_cannot_be_read_is_not_missed():
    files = {"bad.toml": 'include = ["a.toml"]\n[server.a]\nhandler = "m:H"\n', "a.toml": "= 5"}
    assert problems_of(files) == ["a.toml: line 1, column 1: no TOML: invalid statement"]


def test_a_missing_config_is_named():
    with pytest.raises(ConfigError, match=r"^no\.toml: cannot be read: No such file or directory$"):
        load("no.toml", {})


def test_a_folder_is_no_config(folder):
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        load(folder, {})


def test_what_is_not_utf8_is_told_by_line():
    Path("bad.toml").write_bytes(b"# caf\xc3\xa9\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"^bad\.toml: line 2: not UTF-8, expected text in UTF-8"):
        load("bad.toml", {})


def test_an_endless_file_is_refused():
    with pytest.raises(ConfigError, match=r"^/dev/zero: larger than 1048576 bytes$"):
        load("/dev/zero", {})


def test_a_byte_order_mark_is_no_error():
    Path("good.toml").write_bytes(b"\xef\xbb\xbf" + POOL.encode())
    assert list(load("good.toml", {}).servers) == ["a"]


@pytest.mark.parametrize("text", ["a = " + "[" * 20000, "a" + ".a" * 5000 + " = 1"])
def test_what_is_nested_without_end_is_an_error(text):
    assert problems_of(text)[0] == "bad.toml: nested too deeply"
    assert problems_of(POOL + "[server.a.handler_options]\n" + text)[0] == (
        "bad.toml: nested too deeply"
    )


@pytest.mark.parametrize("depth", [300, 480, 490])
def test_what_is_nested_deeply_is_read_or_an_error(depth):
    try:
        config = read(POOL + "handler_options.x = " + "[" * depth + "]" * depth)
    except ConfigError as error:
        assert "nested too deeply" in str(error)  # noqa: PT017 # the other outcome is right, too
    else:
        assert config.servers["a"].handler_options["x"][0][0] != 0


def test_a_number_of_ten_thousand_digits_is_an_error():
    assert len(problems_of(POOL + "workers = " + "9" * 10000)) == 1


def test_a_long_value_is_cut():
    (problem,) = problems_of(POOL + f'access_log = "{"x" * 200}"')
    assert problem.startswith(f'bad.toml: server.a.access_log: found "{"x" * 56}..., expected "com')


def test_a_socket_path_longer_than_the_kernel_takes_is_an_error():
    (problem,) = problems_of(POOL.replace("*:8000", "unix:/" + "x" * 107))
    assert "a socket's path has at most 107 bytes" in problem


# -- files ---------------------------------------------------------------------


def test_included_files_are_read_by_name_and_merged():
    write(
        {
            "conf.d/20.toml": '[server.c]\nbind = ["*:2"]\nhandler = "m:C"\n',
            "conf.d/10.toml": '[server.b]\nbind = ["*:1"]\nhandler = "m:B"\n[server.a.limits]\n'
            "fields = 5\n",
            "conf.d/30.toml.bak": "broken",
        }
    )
    config = read('include = ["conf.d/*.toml", "conf.d/10.toml"]\n' + POOL)
    assert list(config.servers) == ["a", "b", "c"]
    assert config.servers["a"].limits.fields == 5
    assert config.origins["server.a.limits.fields"] == "conf.d/10.toml"
    assert config.origins["server.a.handler"] == "good.toml"


def test_a_pattern_that_matches_nothing_is_no_error():
    assert list(read('include = ["conf.d/*.toml"]\n' + POOL).servers) == ["a"]


def test_included_files_include_others_relative_to_themselves():
    write(
        {
            "sub/one.toml": 'include = ["deeper/two.toml"]\n[master]\npidfile = "run/pid"\n',
            "sub/deeper/two.toml": '[master.log]\ntarget = "./log"\n',
        }
    )
    config = read('include = ["sub/one.toml"]\n' + POOL)
    assert config.master.pidfile == str(Path.cwd() / "sub/run/pid")
    assert config.master.log.target == str(Path.cwd() / "sub/deeper/log")


def test_a_circle_of_includes_is_an_error():
    files = {
        "bad.toml": 'include = ["a.toml"]\n' + POOL,
        "a.toml": 'include = ["b.toml"]\n',
        "b.toml": 'include = ["bad.toml"]\n',
    }
    assert problems_of(files) == [
        "b.toml: include: bad.toml includes this file, expected no circle"
    ]
    files = {"bad.toml": 'include = ["*.toml"]\n' + POOL, "a.toml": "", "b.toml": ""}
    assert problems_of(files) == [
        "bad.toml: include: bad.toml includes this file, expected no circle"
    ]


def test_a_key_in_two_files_is_an_error_that_names_both():
    files = {
        "bad.toml": 'include = ["a.toml"]\n'
        + POOL
        + "threads = 1\n[server.a.limits]\nfields = 5\n",
        "a.toml": "[server.a]\nthreads = 2\nlimits = { fields = 6 }\n[server.a.workers]\nmin = 1\n",
    }
    assert problems_of(files)[:2] == [
        "a.toml: server.a.threads: given already in bad.toml, expected once",
        "a.toml: server.a.limits.fields: given already in bad.toml, expected once",
    ]


def test_a_table_and_a_value_of_one_name_in_two_files_is_an_error():
    files = {
        "bad.toml": 'include = ["a.toml"]\n' + POOL + "workers = 4\n",
        "a.toml": "[server.a.workers]\nmin = 1\nmax = 2\n",
    }
    assert problems_of(files) == [
        "a.toml: server.a.workers: given already in bad.toml, expected once"
    ]


def test_an_included_link_that_leads_nowhere_is_an_error():
    Path("conf.d").mkdir()
    Path("conf.d/site.toml").symlink_to("../sites/site.toml")
    assert problems_of('include = ["conf.d/*.toml"]\n' + POOL) == [
        "conf.d/site.toml: cannot be read: No such file or directory"
    ]


def test_a_misspelt_include_is_answered_by_its_neighbour():
    files = {"bad.toml": 'include = ["conf.d/sites.toml"]\n' + POOL, "conf.d/site.toml": ""}
    assert problems_of(files) == [
        'bad.toml: include[0]: no such file: "conf.d/sites.toml"; did you mean "conf.d/site.toml"?'
    ]


def test_messages_name_files_as_they_were_named(folder):
    write({"etc/bad.toml": 'include = ["conf.d/*.toml"]\n' + POOL, "etc/conf.d/a.toml": "[x]\n"})
    for name in ("etc/bad.toml", f"{folder}/etc/bad.toml"):
        with pytest.raises(ConfigError) as caught:
            load(name, {})
        assert caught.value.problems == [f"{name[:-8]}conf.d/a.toml: x: unknown key"]


# -- values --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30", 30.0),
        ("0.5", 0.5),
        ('"250ms"', 0.25),
        ('"30s"', 30.0),
        ('"1.5m"', 90.0),
        ('"5 m"', 300.0),
        ('"1h"', 3600.0),
        ('"7d"', 604800.0),
    ],
)
def test_times_are_seconds(written, seconds):
    found = pool(f"boot_timeout = {written}").boot_timeout
    assert (found, type(found)) == (seconds, float)


@pytest.mark.parametrize(
    ("written", "size"),
    [("1", 1), ('"1K"', 1024), ('"512M"', 512 << 20), ('"1.5G"', 3 << 29), ('"2T"', 2 << 40)],
)
def test_sizes_are_bytes(written, size):
    found = pool(f"max_memory = {written}").max_memory
    assert (found, type(found)) == (size, int)


def test_off_is_the_one_word_for_never_and_no_limit():
    server = pool(
        'max_requests = "off"\nmax_memory = "off"\nmax_age = "off"\nheartbeat_timeout = "off"\n'
        'access_log = "off"\nlimits.body_bytes = "off"\n'
    )
    assert server.max_requests == 0
    assert server.max_memory is server.max_age is server.heartbeat_timeout is None
    assert server.limits.body_bytes is None
    assert server.access_log == "off"
    assert read('[master]\ncontrol = "off"\n' + POOL).master.control == "off"
    assert pool("max_requests = 0").max_requests == 0


@pytest.mark.parametrize(
    ("written", "workers"),
    [('"auto"', "auto"), ("4", 4), ("{ min = 2, max = 16 }", Scale(min=2, max=16))],
)
def test_workers_are_a_number_a_range_or_auto(written, workers):
    assert pool(f"workers = {written}").workers == workers


def test_permissions_are_octal():
    master = read("[master]\numask = 0o27\ncontrol_mode = 0o660\n" + POOL).master
    assert (master.umask, master.control_mode) == (0o27, 0o660)
    assert read("[master]\numask = 7\n" + POOL).master.umask == 7


def test_limits_of_processes_keep_the_default_of_others():
    master = read('[master]\nrlimits = { core = "unlimited", fsize = "1G" }\n' + POOL).master
    assert master.rlimits == {"core": "unlimited", "fsize": 1 << 30, "nofile": 65536}


def test_relative_paths_begin_at_their_file_and_words_are_none(folder):
    config = read(
        '[master]\nlog.target = "syslog"\npidfile = "run/pid"\nworking_directory = "/"\n'
        + POOL
        + 'path = ["lib", "/usr/lib"]\nchroot = "jail"\naccess_log_path = "log"\n'
        'handler_options.directory = "share"\n'
    )
    server = config.servers["a"]
    assert config.master.log.target == "syslog"
    assert config.master.pidfile == f"{folder}/run/pid"
    assert config.master.working_directory == "/"
    assert server.path == [f"{folder}/lib", "/usr/lib"]
    assert (server.chroot, server.access_log_path) == (f"{folder}/jail", f"{folder}/log")
    assert server.handler_options == {"directory": f"{folder}/share"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("*:8000", (Place.HOST, "*", 8000)),
        ("127.0.0.1:0", (Place.HOST, "127.0.0.1", 0)),
        ("[::]:8000", (Place.HOST, "::", 8000)),
        ("[fe80::1%eth0]:80", (Place.HOST, "fe80::1%eth0", 80)),
        ("files.example.org:65535", (Place.HOST, "files.example.org", 65535)),
        ("unix:/run/s", (Place.UNIX, "/run/s", 0)),
        ("unix:@name", (Place.UNIX, "@name", 0)),
        ("systemd:http", (Place.SYSTEMD, "http", 0)),
        ("fd:3", (Place.FD, "", 3)),
    ],
)
def test_an_address_is_taken_apart_and_put_together(text, found):
    address = parse_address(text)
    assert (address.place, address.name, address.number) == found
    assert str(address) == text


def test_a_listener_may_be_a_table():
    server = read(
        '[server.a]\nhandler = "m:H"\nbind = ["*:80", { address = "unix:s", mode = 0o600,'
        ' owner = "www", forwarders = ["unix"], request_queue_size = 5 }]\n'
    ).servers["a"]
    assert server.bind == [
        "*:80",
        ListenerConfig(
            address=f"unix:{Path.cwd()}/s",
            mode=0o600,
            owner="www",
            forwarders=["unix"],
            request_queue_size=5,
        ),
    ]


def test_two_pools_may_have_one_port_which_may_be_for_datagrams():
    config = read(POOL + POOL.replace("server.a", "server.b"))
    assert [server.bind for server in config.servers.values()] == [["*:8000"]] * 2


def test_port_0_may_stand_twice():
    assert read(POOL.replace('"*:8000"', '"*:0", "*:0"')).servers["a"].bind == ["*:0", "*:0"]


def test_objects_cannot_be_changed():
    config = read(POOL)
    with pytest.raises(AttributeError):
        config.servers["a"].threads = 5
    with pytest.raises(AttributeError):
        config.master = None


# -- what comes from elsewhere ---------------------------------------------------


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("${USER}", "ada"),
        ("x${USER}y${USER}", "xadayada"),
        ("${USER:-eve}", "ada"),
        ("${NONE:-eve}", "eve"),
        ("${EMPTY:-eve}", "eve"),
        ("${NONE:-}x", "x"),
        ("$${USER}", "${USER}"),
        ("$USER $$ $", "$USER $$ $"),
    ],
)
def test_variables_of_the_environment_stand_in_any_text(written, text):
    environ = {"USER": "ada", "EMPTY": ""}
    assert pool(f'environment.X = "{written}"', environ).environment == {"X": text}


def test_a_variable_may_be_a_number_a_switch_or_permissions():
    environ = {"N": "4", "YES": "true", "SHARE": "0.5", "MODE": "027", "TIME": "5m", "PORT": "80"}
    config = read(
        '[master]\numask = "${MODE}"\n' + POOL.replace("8000", "${PORT}") + 'workers = "${N}"\n'
        'preload = "${YES}"\nmax_requests_jitter = "${SHARE}"\nmax_age = "${TIME}"\n',
        environ,
    )
    server = config.servers["a"]
    assert config.master.umask == 0o27
    assert server.bind == ["*:80"]
    assert (server.workers, server.preload, server.max_age) == (4, True, 300.0)
    assert server.max_requests_jitter == 0.5


def test_a_variable_that_is_no_text_may_be_a_path_but_no_number():
    environ = {"NAME": "caf\udce9"}  # PEP 383
    assert pool('access_log_path = "/${NAME}"', environ).access_log_path == "/caf\udce9"
    show(read(POOL + 'access_log_path = "/${NAME}"', environ)).encode()
    for key in ("workers", "access_log", "preload", "max_age", "handler_options"):
        assert len(problems_of(POOL + f'{key} = "${{NAME}}"', environ)) == 1


def test_key_file_is_the_text_of_a_file_without_its_last_line_end():
    write({"secrets/user": "www\n", "secrets/password": "a\n\n", "secrets/page": "${x}"})
    server = pool(
        'user_file = "secrets/user"\nenvironment.PASSWORD_file = "secrets/password"\n'
        'handler_options = { page_file = "secrets/page" }\n'
    )
    assert server.user == "www"
    assert server.environment == {"PASSWORD": "a\n"}
    assert server.handler_options == {"page": "${x}"}


def test_an_option_of_a_handler_whose_name_ends_in_file_may_name_one_that_is_not_there():
    assert pool('handler_options.log_file = "/no/such"').handler_options == {"log_file": "/no/such"}


def test_a_secret_is_neither_in_messages_nor_in_what_is_shown():
    write({"secret": "hunter2\n", "level": "hunter2"})
    environ = {"SECRET": "hunter2"}
    config = read(
        POOL + 'user_file = "secret"\nenvironment = { A_file = "secret", B = "x${SECRET}" }\n'
        'handler_options = { c = ["${SECRET}"], d_file = "secret" }\n',
        environ,
    )
    assert config.servers["a"].environment == {"A": "hunter2", "B": "xhunter2"}
    assert config.servers["a"].handler_options == {"c": ["hunter2"], "d": "hunter2"}
    assert "hunter2" not in show(config)
    secret = Path.cwd() / "secret"
    assert config.origins["server.a.environment.A"] == f"good.toml, {secret}"
    assert config.origins["server.a.environment.B"] == "good.toml, ${SECRET}"
    assert problems_of('[server.a]\nbind = ["*:80"]\nhandler_file = "level"\n') == [
        f'bad.toml: server.a.handler: found what is in "{Path.cwd()}/level", expected "module:NAME"'
    ]


# -- what is shown ---------------------------------------------------------------


EVERYTHING = """
[master]
user = "www"
umask = 0o27
graceful_timeout = "90s"
rlimits = { core = "unlimited" }
log = { level = "debug", repeat_window = 0.25 }

[server.one]
bind = ["*:8000", { address = "unix:/run/s", mode = 0o600, forwarders = ["unix"] }]
handler = "m:H"
workers = { min = 2, max = 16 }
heartbeat_timeout = "off"
max_requests = 1000
max_memory = "512M"
environment = { A = "$${x} \\"quoted\\" \\u007f ünï", "B.C" = "" }
proxies = ["10.0.0.0/8"]
timeout = 1
handler_options = { directory = "/srv", when = 2024-01-01, list = [1, 2.5, { a = true }] }
limits = { body_bytes = "off", line_bytes = 8191 }

[server.two-2]
bind = ["fd:3"]
handler = "m.n:H.I"
"""


def test_what_is_shown_can_be_read_and_means_the_same():
    config = read(EVERYTHING)
    again = read(show(config))
    assert again.master == config.master
    assert again.servers == config.servers


def test_every_key_is_shown_with_its_origin():
    text = show(read(EVERYTHING))
    data = tomllib.loads(text)
    for table, schema in ((data["master"], MasterConfig), (data["server"]["one"], ServerConfig)):
        comments = set(re.findall(r"^# (\w+) +# default: ", text, re.MULTILINE))
        assert set(table) <= set(settings_of(schema))
        assert set(settings_of(schema)) <= set(table) | comments
    assert re.search(r'^heartbeat_timeout = "off" +# good.toml$', text, re.MULTILINE)
    assert re.search(r'^kill_timeout = "2s" +# default$', text, re.MULTILINE)
    assert re.search(r"^umask = 0o027 +# good.toml$", text, re.MULTILINE)
    assert re.search(r"^# user +# default: the master's$", text, re.MULTILINE)


def test_what_is_shown_is_one_line_per_key_whatever_the_values():
    config = read(POOL + 'environment = { A = "one\\ntwo\\u001b[31m" }')
    assert 'A = "one\\ntwo\\u001b[31m"' in show(config)


def test_the_reference_has_every_key_with_type_default_and_meaning():
    text = reference()
    for schema in (
        MasterConfig,
        LogConfig,
        ServerConfig,
        LimitsConfig,
        ListenerConfig,
        Scale,
        HandlerOptions,
    ):
        for name, setting in settings_of(schema).items():
            assert setting.kind.meaning, name
            if not (setting.kind.struct and setting.kind.is_table):
                assert re.search(rf"^  {name} ", text, re.MULTILINE), name
                assert f"| `{name}` |" in reference_markdown()
            assert (
                setting.default is not None
                or setting.kind.may_be_off
                or (setting.unset is not None)
            ), name
    assert max(map(len, text.splitlines())) <= 110


def test_every_none_is_off_or_says_what_it_means_to_be_unset():
    for schema in (MasterConfig, LogConfig, ServerConfig, LimitsConfig, ListenerConfig):
        for name, setting in settings_of(schema).items():
            assert setting.kind.may_be_none == (
                "unset" in setting.kind.extra
                or (setting.kind.may_be_off and name != "max_requests")
            ), name


# -- the schema ------------------------------------------------------------------


def test_limits_are_those_of_the_engine():
    ours = {info.name: info.default for info in msgspec.structs.fields(LimitsConfig)}
    assert ours == {field.name: field.default for field in dataclasses.fields(Limits)}
    assert LimitsConfig().for_engine() == Limits()


def test_defaults_lie_in_their_own_range():
    for schema in (MasterConfig, LogConfig, ServerConfig, LimitsConfig, ListenerConfig):
        for name, setting in settings_of(schema).items():
            default = setting.default
            if setting.is_required or default is None or isinstance(default, msgspec.Struct):
                continue
            assert setting.kind.accepts(default), name


# -- the examples ------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(ETC.glob("*.toml")), ids=lambda path: path.name)
def test_an_example_is_right_and_shows_the_same(path):
    config = load(path, {})
    assert config.servers
    shown = read(show(config), {}).servers
    assert {name: pool.bind for name, pool in shown.items()} == {
        name: pool.bind for name, pool in config.servers.items()
    }


def test_the_environment_of_the_process_is_the_default(monkeypatch):
    monkeypatch.setenv("PREFORK_TEST_PORT", "81")
    write({"good.toml": POOL.replace("8000", "${PREFORK_TEST_PORT}")})
    assert load("good.toml").servers["a"].bind == ["*:81"]
    assert os.environ["PREFORK_TEST_PORT"] == "81"


def test_the_reference_in_the_readme_is_the_programs_own():
    readme = Path(__file__).parent.parent / "README.md"
    begins, ends = "reference_markdown() -->\n", "\n<!-- to here"
    text = readme.read_text().partition(begins)[2].partition(ends)[0]
    assert text.strip() == reference_markdown().strip()
