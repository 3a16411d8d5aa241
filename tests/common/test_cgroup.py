"""What control groups allow, as the kernel tells it on machines of several kinds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from asi_lab.common import cgroup, process

GIGABYTE = 2**30
VERSION_1 = ("cpu,cpuacct", "memory", "name=systemd")


def machine(root: Path, paths: str, mounts: dict[str, str], files: dict[str, str]) -> cgroup.Groups:
    """The groups of a process with these lines of `cgroup`, with hierarchies mounted in folders of `root`
    (each by "top of the mount filesystem options") and these files there."""
    proc = root / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(paths)
    lines = ["23 1 0:5 / / rw - ext4 /dev/vda rw"]
    for folder, told in mounts.items():
        top, filesystem, options = told.split()
        (root / folder).mkdir(parents=True, exist_ok=True)
        place = str(root / folder).replace(" ", "\\040")
        lines.append(f"31 23 0:28 {top} {place} rw,relatime - {filesystem} none rw,{options}")
    lines.append("40 23 0:40 / /mnt/x rw,relatime shared:9 - tmpfs  rw")  # as the kernel writes an empty name
    (proc / "mountinfo").write_text("\n".join(lines) + "\n")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return cgroup.own(proc)


def test_a_container_of_version_2_sees_its_own_group_at_the_top(tmp_path):
    files = {
        "sys/cpu.max": "50000 100000\n",
        "sys/memory.max": f"{2 * GIGABYTE}\n",
        "sys/memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n",
    }
    groups = machine(tmp_path, "0::/\n", {"sys": "/ cgroup2 nsdelegate"}, files)
    assert groups.cores() == 0.5
    assert groups.memory_bytes() == 2 * GIGABYTE
    assert groups.kills() == 2


def test_the_limits_of_all_groups_above_hold_too(tmp_path):
    files = {
        "sys/user/job/cpu.max": "max 100000\n",
        "sys/user/job/memory.max": f"{4 * GIGABYTE}\n",
        "sys/user/job/memory.events": "oom_kill 1\n",
        "sys/user/cpu.max": "150000 100000\n",
        "sys/user/memory.max": f"{3 * GIGABYTE}\n",
        "sys/user/memory.events": "oom_kill 40\n",
    }
    groups = machine(tmp_path, "0::/user/job\n", {"sys": "/ cgroup2 rw"}, files)
    assert groups.cores() == 1.5
    assert groups.memory_bytes() == 3 * GIGABYTE
    assert groups.kills() == 1


def test_version_1_beside_an_empty_version_2(tmp_path):
    paths = "9:name=systemd:/\n4:memory:/jobs/7\n2:cpu,cpuacct:/jobs/7\n0::/elsewhere\n"
    mounts = {"sys/unified": "/ cgroup2 rw"} | {f"sys/{name}": f"/ cgroup {name}" for name in VERSION_1}
    files = {
        "sys/cpu,cpuacct/jobs/7/cpu.cfs_quota_us": "-1\n",
        "sys/cpu,cpuacct/jobs/7/cpu.cfs_period_us": "100000\n",
        "sys/cpu,cpuacct/jobs/cpu.cfs_quota_us": "25000\n",
        "sys/cpu,cpuacct/jobs/cpu.cfs_period_us": "50000\n",
        "sys/memory/jobs/7/memory.limit_in_bytes": f"{GIGABYTE}\n",
        "sys/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/memory/jobs/7/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
    }
    groups = machine(tmp_path, paths, mounts, files)
    assert groups.cores() == 0.5
    assert groups.memory_bytes() == GIGABYTE
    assert groups.kills() == 5


def test_a_container_of_version_1_names_the_path_of_its_host(tmp_path):
    paths = "4:memory:/docker/0af3\n1:cpu:/docker/0af3\n"
    mounts = {"sys/memory": "/docker/0af3 cgroup memory", "sys/cpu": "/ cgroup cpu"}
    files = {
        "sys/memory/memory.limit_in_bytes": "1000000\n",
        "sys/cpu/cpu.cfs_quota_us": "300000\n",
        "sys/cpu/cpu.cfs_period_us": "100000\n",
    }
    groups = machine(tmp_path, paths, mounts, files)
    assert (groups.cores(), groups.memory_bytes()) == (3.0, 1_000_000)


def test_names_with_blanks_are_read(tmp_path):
    groups = machine(
        tmp_path, "0::/my job:1\n", {"my sys": "/ cgroup2 rw"}, {"my sys/my job:1/memory.max": "1000"}
    )
    assert groups.memory_bytes() == 1000


def test_of_several_mounts_the_one_that_holds_us_counts(tmp_path):
    mounts = {"foreign": "/other cgroup2 rw", "whole": "/ cgroup2 rw", "ours": "/job cgroup2 rw"}
    files = {f"{name}/memory.max": str(size) for name, size in (("foreign", 10), ("whole", 20), ("ours", 30))}
    assert machine(tmp_path, "0::/job\n", mounts, files).memory_bytes() == 30


@pytest.mark.parametrize("text", ["", "\n", "nonsense\n", "max\n"])
def test_what_is_no_number_is_no_limit(tmp_path, text):
    files = {f"sys/{name}": text for name in ("cpu.max", "memory.max", "memory.events")}
    groups = machine(tmp_path, "\nnonsense\n0::/\n", {"sys": "/ cgroup2 rw"}, files)
    assert (groups.cores(), groups.memory_bytes(), groups.kills()) == (math.inf, math.inf, 0)


@pytest.mark.parametrize("paths", ["", "0::/\n", "4:memory:/\n"])
def test_without_groups_there_is_no_limit(tmp_path, paths):
    groups = machine(tmp_path, paths, {}, {})
    assert (groups.cores(), groups.memory_bytes(), groups.kills()) == (math.inf, math.inf, 0)
    nowhere = cgroup.own(tmp_path / "nowhere")
    assert (nowhere.cores(), nowhere.memory_bytes(), nowhere.kills()) == (math.inf, math.inf, 0)


@pytest.mark.parametrize(
    ("quota", "cores"), [("50000 100000", 1), ("150000 100000", 1), ("200000 100000", 2), ("max 100000", 4)]
)
def test_threads_keep_to_the_processors_that_may_be_used(tmp_path, monkeypatch, quota, cores):
    groups = machine(tmp_path, "0::/\n", {"sys": "/ cgroup2 rw"}, {"sys/cpu.max": quota})
    monkeypatch.setattr(cgroup, "own", lambda: groups)
    monkeypatch.setattr(process.os, "sched_getaffinity", lambda pid: set(range(4)))
    monkeypatch.setattr(process.psutil, "cpu_count", lambda logical: 4)
    assert process.physical_cores() == cores
