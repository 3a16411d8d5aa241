"""Level 1: namespaces by bubblewrap. What is not bound does not exist inside."""

from __future__ import annotations

from pathlib import Path

from asi_lab.sandbox.policy import Policy, system_paths

PROGRAM = "bwrap"


def arguments(policy: Policy, environment: dict[str, str], filter_descriptor: int) -> tuple[str, ...]:
    """The command line of `bwrap` up to the program to run.

    New user, process, network, IPC, host name and control group namespaces; an own /proc, /dev, /tmp and
    /dev/shm; only the workspace can be written to. `filter_descriptor` holds the system call filter.
    """
    command = [PROGRAM, "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += [
        "--unshare-cgroup-try",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
        "--clearenv",
    ]
    for name, value in environment.items():
        command += ["--setenv", name, value]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for place in ("/tmp", "/dev/shm"):
        command += ["--size", str(policy.temporary_bytes), "--tmpfs", place]
    for path in (*system_paths(), *policy.readable):
        command += _bind(path)
    if policy.devices:  # the drivers look for the bus in /sys
        command += ["--ro-bind", "/sys", "/sys"]
        for device in policy.devices:
            command += ["--dev-bind", device, device]
    command += ["--bind", policy.workspace, policy.workspace, "--chdir", policy.workspace]
    return (*command, "--seccomp", str(filter_descriptor), "--")


def _bind(path: str) -> list[str]:
    """Links such as /bin are made again as they are; all else is bound for reading."""
    if Path(path).is_symlink():
        return ["--symlink", str(Path(path).readlink()), path]
    return ["--ro-bind", path, path]
