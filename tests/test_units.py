"""What `install-service` says of a config; that systemd takes it is shown in test_systemd.py."""

import os
import stat
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT

from prefork.config import load
from prefork.errors import StartError, UsageError
from prefork.service import shares
from prefork.service.files import write_file
from prefork.service.install import install_service
from prefork.service.units import SYSUSERS_FILE, TMPFILES_FILE, UNITS, plan_units
from prefork.service.unittext import (
    SYSUSERS,
    TMPFILES,
    Service,
    Socket,
    command_word,
    unit_name,
    word,
)

POOL = """
[server.web]
bind = [{bind}]
handler = "prefork.http:SimpleHTTPRequestHandler"
"""

SHIPPED = [
    Service(
        name="prefork.service",
        origin="The service of one config; prefork@.service is for several.",
        config="/etc/prefork/prefork.toml",
        runtime="prefork/prefork",
        writable=("-/run/prefork",),
    ),
    Service(
        name="prefork@.service",
        origin="The service of each config in /etc/prefork: systemctl enable --now prefork@NAME",
        config="/etc/prefork/%i.toml",
        runtime="prefork/%i",
        writable=("-/run/prefork",),
    ),
    Socket(
        name="prefork.socket",
        origin='Starts prefork.service for its first client; for bind = ["systemd:http"].',
        service="prefork.service",
        fd_name="http",
        addresses=("0.0.0.0:8000", "[::]:8000"),
    ),
    Socket(
        name="prefork-local.socket",
        origin='A socket of another name: bind = ["systemd:http", "systemd:local"].',
        service="prefork.service",
        fd_name="local",
        addresses=("/run/prefork-local.sock",),
    ),
]


@pytest.fixture
def units(tmp_path):
    """Return a function: the units of a config, as {file name: lines}."""

    def planned(bind='"*:8000"', master="", pool="", name="site.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(master + POOL.format(bind=bind) + pool)
        return {p.name: text.splitlines() for p, text in plan_units(load(path, {})).items()}

    return planned


@pytest.fixture
def service(units):
    """Return a function: the lines of the service of a config."""

    def planned(*args, **kwargs):
        return next(iter(units(*args, **kwargs).values()))

    return planned


def values(lines, key):
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


@pytest.mark.parametrize("unit", SHIPPED, ids=lambda unit: unit.name)
def test_the_units_of_the_distribution_are_what_install_service_makes(unit):
    assert (CHECKOUT / "systemd" / unit.name).read_text() == unit.text()


def test_user_and_folder_of_the_distribution_are_those_of_install_service():
    assert (CHECKOUT / "systemd/prefork.sysusers").read_text() == SYSUSERS
    assert (CHECKOUT / "systemd/prefork.tmpfiles").read_text() == TMPFILES


def test_a_config_without_wishes_gets_the_user_of_the_distribution(units, tmp_path):
    files = units()
    lines = files["prefork-site.service"]
    assert list(files) == ["prefork-site.service", "prefork.conf", "prefork.conf"][:2]
    assert values(lines, "User") == ["prefork"]
    assert values(lines, "RuntimeDirectory") == ["prefork/site"]
    assert values(lines, "CapabilityBoundingSet") == [""]
    assert values(lines, "PrivateUsers") == ["yes"]
    command = Path(sys.executable).parent / "prefork"
    assert values(lines, "ExecStart") == [f"{command} {tmp_path}/site.toml"]
    assert values(lines, "ExecReload") == [f"{command} reload {tmp_path}/site.toml"]


def test_the_config_named_prefork_has_the_service_named_prefork(units):
    assert "prefork.service" in units(name="prefork.toml")


def test_the_places_of_units_users_and_folders_are_the_administrators(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(POOL.format(bind='"*:8000"'))
    assert list(plan_units(load(path, {}))) == [
        UNITS / "prefork-site.service",
        SYSUSERS_FILE,
        TMPFILES_FILE,
    ]


def test_a_config_that_detaches_is_refused(service, tmp_path):
    with pytest.raises(StartError) as found:
        service(master="[master]\ndaemonize = true\n")
    assert str(found.value) == (
        f"{tmp_path}/site.toml: daemonize: systemd itself runs services in the background;"
        " remove it"
    )


@pytest.mark.parametrize("bind", ['"*:80"', '"127.0.0.1:1023"', '{address = "[::1]:443"}'])
def test_a_low_port_is_allowed_by_one_capability(service, bind):
    lines = service(bind)
    assert values(lines, "CapabilityBoundingSet") == ["CAP_NET_BIND_SERVICE"]
    assert values(lines, "AmbientCapabilities") == ["CAP_NET_BIND_SERVICE"]
    assert values(lines, "SystemCallFilter")[-1] == "capset"  # to give it up again
    assert values(lines, "PrivateUsers") == ["no"]


@pytest.mark.parametrize("bind", ['"*:1024"', '"127.0.0.1:0"', '"systemd:80"', '"unix:/run/80"'])
def test_no_other_address_needs_it(service, bind):
    assert values(service(bind), "CapabilityBoundingSet") == [""]


@pytest.mark.parametrize(
    ("bind", "target"),
    [
        ('"*:8000"', "network.target"),
        ('"127.0.0.2:8000"', "network.target"),
        ('"[::1]:8000"', "network.target"),
        ('"192.0.2.1:8000"', "network-online.target"),
        ('"files.example:8000"', "network-online.target"),
        ('{address = "192.0.2.1:8000", freebind = true}', "network.target"),
    ],
)
def test_only_an_address_of_an_interface_waits_for_the_network(service, bind, target):
    assert values(service(bind), "After") == [target]
    assert values(service(bind), "Wants") == ["network-online.target"] * ("-" in target)


def test_the_masters_user_is_the_services(units):
    files = units(master='[master]\nuser = "www"\ngroup = "web"\n')
    lines = files["prefork-site.service"]
    assert values(lines, "User") == ["www"]
    assert values(lines, "Group") == ["web"]
    assert values(lines, "LogsDirectory") == values(lines, "CacheDirectory") == []
    assert list(files) == ["prefork-site.service"]


def test_pools_with_users_of_their_own_have_a_master_that_can_become_them(service):
    lines = service(pool='user = "www"\nchroot = "/srv/www"\n')
    allowed = values(lines, "CapabilityBoundingSet")[0].split()
    assert values(lines, "User") == []
    assert {"CAP_SETUID", "CAP_SETGID", "CAP_SYS_CHROOT"} <= set(allowed)
    assert values(lines, "SystemCallFilter")[-1] == "capset @setuid chroot @chown"
    assert values(lines, "PrivateUsers") == ["no"]
    assert values(lines, "NoNewPrivileges") == ["yes"]


def test_it_may_take_as_long_as_the_config_says(service):
    lines = service(master='[master]\ngraceful_timeout = "2m"\n', pool='boot_timeout = "3m"\n')
    assert values(lines, "TimeoutStopSec") == ["132"]
    assert values(lines, "TimeoutStartSec") == ["190"]
    assert values(service(), "TimeoutStartSec") == []


def test_limits_of_the_config_are_allowed_by_systemd(service):
    lines = service(master='[master.rlimits]\nnofile = 100000\ncore = "unlimited"\n')
    assert values(lines, "LimitNOFILE") == ["100000"]
    assert values(lines, "LimitCORE") == ["infinity"]
    assert values(service(), "LimitNOFILE") == []


def test_each_name_of_a_socket_is_a_unit(units):
    files = units('"systemd:http", "systemd:8080", "systemd:a/b"')
    names = [f"prefork-site-{name}.socket" for name in ("http", "8080", r"a\x2fb")]
    assert list(files)[:4] == ["prefork-site.service", *names]
    lines = files["prefork-site.service"]
    assert values(lines, "Requires") == [" ".join(names)]
    assert values(lines, "Also") == [" ".join(names)]
    listen = [values(files[name], "ListenStream") for name in names]
    assert listen == [
        ["0.0.0.0:80", "[::]:80"],
        ["0.0.0.0:8080", "[::]:8080"],
        ["/run/prefork-site-a-b.sock"],
    ]
    assert values(files[names[0]], "FileDescriptorName") == ["http"]
    assert values(files[names[0]], "Service") == ["prefork-site.service"]
    assert values(files[names[0]], "BindIPv6Only") == ["ipv6-only"]
    assert values(files[names[2]], "SocketMode") == ["0660"]


def test_a_socket_has_the_queue_and_the_kind_of_its_pool(units):
    files = units(
        '{address = "systemd:9", request_queue_size = 7}', pool='socket_type = "SOCK_DGRAM"'
    )
    lines = files["prefork-site-9.socket"]
    assert values(lines, "ListenDatagram") == ["0.0.0.0:9", "[::]:9"]
    assert values(lines, "Backlog") == ["7"]


def test_what_homes_and_temporary_folders_hide_is_shown_to_it_alone(service):
    lines = service(
        name="home.toml", pool='[server.web.handler_options]\ndirectory = "/home/x/Public"'
    )
    assert values(lines, "ProtectHome") == ["tmpfs"]
    assert values(lines, "TemporaryFileSystem") == ["/home:ro /root:ro /run/user:ro"]
    assert "/home/x/Public" in values(lines, "BindReadOnlyPaths")[0].split()


def test_folders_of_logs_and_sockets_are_writable(service):
    lines = service(
        '"unix:/srv/run/x.sock", "unix:/run/prefork/y.sock", "unix:@abstract"',
        master='[master.log]\ntarget = "/var/log/web/error.log"\n',
        pool='access_log_path = "/var/log/prefork/access.log"\n',
    )
    assert values(lines, "ReadWritePaths") == ["-/run/prefork /srv/run /var/log/web"]


def test_a_socket_in_tmp_is_in_the_tmp_of_all(service):
    assert values(service('"unix:/tmp/x.sock"'), "PrivateTmp") == ["no"]
    assert values(service(), "PrivateTmp") == ["yes"]


@pytest.mark.parametrize(
    ("path", "in_command", "in_list"),
    [
        ("/etc/a-b.toml", "/etc/a-b.toml", "/etc/a-b.toml"),
        ("/etc/a b.toml", '"/etc/a b.toml"', '"/etc/a b.toml"'),
        ("/etc/100%.toml", "/etc/100%%.toml", "/etc/100%%.toml"),
        ("/etc/$HOME.toml", '"/etc/$$HOME.toml"', '"/etc/$HOME.toml"'),
        ('/etc/"\\\n', '"/etc/\\"\\\\\\n"', '"/etc/\\"\\\\\\n"'),
    ],
)
def test_no_path_means_anything_but_itself(path, in_command, in_list):
    assert command_word(path) == in_command
    assert word(path) == in_list


def test_a_units_name_is_no_instance_and_no_path():
    assert unit_name("my site@2/ä.b-c_d:e") == r"my\x20site\x402\x2f\xc3\xa4.b-c_d:e"


def test_shown_units_name_their_files(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(POOL.format(bind='"systemd:http"'))
    shown = install_service(load(path, {}), write=False)
    heads = [line for line in shown.splitlines() if line.startswith("# /")]
    assert heads == [
        "# /etc/systemd/system/prefork-site.service",
        "# /etc/systemd/system/prefork-site-http.socket",
        "# /etc/sysusers.d/prefork.conf",
        "# /etc/tmpfiles.d/prefork.conf",
    ]


def test_a_file_is_replaced_at_once_and_for_all_to_read(tmp_path):
    path = tmp_path / "new" / "x.service"
    write_file(path, "old")
    with path.open() as old:
        write_file(path, "new")
        assert old.read() == "old"
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == ["x.service"]  # noqa: PTH208 # hidden ones, too


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StartError, match=r"^cannot write .*/file/x.service: (Not a dir|File exists)"
    ):
        write_file(tmp_path / "file" / "x.service", "text")


def test_a_cache_directory_of_the_config_is_writable(service):
    line = '[server.web.handler_options]\ncache_directory = "/var/lib/cache"\n'
    assert values(service(pool=line), "ReadWritePaths") == ["-/run/prefork /var/lib/cache"]
    line = '[server.web.handler_options]\ncache_directory = "/var/cache/prefork/a"\n'
    assert values(service(pool=line), "ReadWritePaths") == ["-/run/prefork"]
    assert values(service(), "CacheDirectory") == ["prefork"]
    assert values(service(), "CacheDirectoryMode") == ["0700"]


# -- a folder --------------------------------------------------------------------


@pytest.fixture(autouse=True)
def configs(tmp_path, monkeypatch):
    """Where configs of shares are written to."""
    monkeypatch.setattr(shares, "CONFIGS", tmp_path / "etc")
    return tmp_path / "etc"


def test_the_example_of_a_share_is_what_is_installed():
    assert (CHECKOUT / "etc/share.toml").read_text() == shares._TEMPLATE.read_text()


@pytest.mark.parametrize(
    ("name", "config"),
    [("share", "share.toml"), ("My Fotos $\u00e4", "My-Fotos.toml"), ("${HOME}", "HOME.toml")],
)
def test_a_folder_gets_a_config_of_its_name_and_is_made(configs, tmp_path, name, config):
    path = shares.config_of(str(tmp_path / name), may_write=True)
    assert path == configs / config
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    options = load(path, {"HOME": "/root"}).servers["share"].handler_options
    assert options["directory"] == str(tmp_path / name)
    assert (tmp_path / name).is_dir()


def test_a_config_that_is_there_is_used_and_never_changed(tmp_path):
    path = shares.config_of(str(tmp_path / "share"), may_write=True)
    path.write_text(path.read_text().replace("hidden = false", "hidden = true"))
    assert shares.config_of(str(tmp_path / "share"), may_write=True) == path
    assert "hidden = true" in path.read_text()
    (tmp_path / "else").mkdir()
    with pytest.raises(StartError, match=r"share\.toml is there, and not for /.*/else/share; name"):
        shares.config_of(str(tmp_path / "else/share"), may_write=True)
    assert not (tmp_path / "else/share").exists()


def test_what_is_only_shown_makes_nothing(configs, tmp_path):
    with pytest.raises(UsageError, match=r"share is no config: with --now it becomes a service"):
        shares.config_of(str(tmp_path / "share"), may_write=False)
    assert not configs.exists()
    assert not (tmp_path / "share").exists()
    assert shares.config_of("site.toml", may_write=False) == Path("site.toml")


@pytest.mark.parametrize("target", ["no/such", "file/below"])
def test_a_folder_that_cannot_be_made_is_told(configs, tmp_path, target):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"^cannot share /.*: No"):
        shares.config_of(str(tmp_path / target), may_write=True)
    assert not configs.exists()
