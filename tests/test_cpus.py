"""`workers = "auto"`: the affinity mask and the cgroup's quota, whichever is smaller."""

import os
from pathlib import Path

import pytest

from prefork import cpus


@pytest.fixture
def cgroups(monkeypatch, tmp_path):
    """Files as the kernel has them, for a process in /system/app; returns a setter of cpu.max."""
    proc = tmp_path / "cgroup"
    proc.write_text("0::/system/app\n")
    monkeypatch.setattr(cpus, "_OWN_CGROUP", proc)
    monkeypatch.setattr(cpus, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))

    def limit(group: str, text: str) -> None:
        folder = tmp_path / "fs" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(text)

    return limit


def test_without_a_quota_the_affinity_counts(cgroups):
    cgroups("system/app", "max 100000\n")
    assert cpus.available_cpus() == 8


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("200000 100000", 2), ("250000 100000", 3), ("10000 100000", 1), ("9900000 100000", 8)],
)
def test_a_quota_limits_and_a_fraction_counts_as_one_more(cgroups, quota, expected):
    cgroups("system/app", quota)
    assert cpus.available_cpus() == expected


def test_the_quota_of_a_group_above_limits_too(cgroups):
    cgroups("system/app", "400000 100000")
    cgroups("system", "300000 100000")
    assert cpus.available_cpus() == 3


@pytest.mark.usefixtures("cgroups")
def test_a_system_without_these_files_has_its_affinity(monkeypatch):
    monkeypatch.setattr(cpus, "_OWN_CGROUP", Path("/nonexistent"))
    assert cpus.available_cpus() == 8


def test_this_process_has_at_least_one_and_no_more_than_its_affinity():
    assert 1 <= cpus.available_cpus() <= len(os.sched_getaffinity(0))
