"""Which folder a share keeps checksums in, and when it keeps them in memory alone."""

from pathlib import Path

import pytest

from prefork.share.cachedir import cache_directory


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user who has nothing yet."""
    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode_of(path) -> int:
    return path.stat().st_mode & 0o7777


def test_unsaid_it_is_below_the_users_cache_and_made_for_nobody_else(home):
    assert cache_directory("") == str(home / ".cache/prefork")
    assert mode_of(home / ".cache") == mode_of(home / ".cache/prefork") == 0o700


def test_xdg_says_where_that_is_unless_it_is_relative(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    assert cache_directory("") == str(home / "prefork")
    assert mode_of(home / "prefork") == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_directory("") == str(home / ".cache/prefork")


def test_systemd_says_it_first(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setenv("CACHE_DIRECTORY", f"{home}/a:{home}/b")
    assert cache_directory("") == f"{home}/a"
    assert not (home / "prefork").exists()


def test_what_the_option_says_counts_before_all(home, monkeypatch):
    monkeypatch.setenv("CACHE_DIRECTORY", f"{home}/a")
    assert cache_directory(f"{home}/c") == f"{home}/c"
    assert not (home / "a").exists()


def test_one_that_is_there_is_left_as_it_is(home):
    (home / "c").mkdir(0o750)
    (home / "c/kept").write_text("here")
    assert cache_directory(f"{home}/c") == f"{home}/c"
    assert mode_of(home / "c") == 0o750
    assert (home / "c/kept").read_text() == "here"


@pytest.mark.parametrize("said", ["file", "file/below", "no/such", "/proc/prefork", "anybodys"])
def test_one_that_cannot_be_had_is_none_and_is_told(home, said, caplog):
    (home / "file").write_text("")
    (home / "anybodys").mkdir()
    (home / "anybodys").chmod(0o777)
    assert cache_directory(str(home / said)) is None
    assert [(r.levelname, r.event) for r in caplog.records] == [("WARNING", "share.no_cache")]


def test_a_user_without_a_home_has_none_and_nobody_minds(home, monkeypatch, caplog):
    monkeypatch.setenv("HOME", "/proc")
    assert cache_directory("") is None

    def unknown():
        raise RuntimeError

    monkeypatch.setattr(Path, "home", unknown)
    assert cache_directory("") is None
    assert not caplog.records
    assert home.exists()
