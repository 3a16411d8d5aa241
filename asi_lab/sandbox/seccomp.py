"""The system call filter of levels 1 and 2, by libseccomp."""

from __future__ import annotations

import errno
from typing import Any

DENIED = (
    # other processes, and the kernel's keys
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp"),
    *("add_key", "keyctl", "request_key"),
    # mounts and namespaces
    *("mount", "umount", "umount2", "pivot_root", "chroot", "fsopen", "fsconfig", "fsmount", "fspick"),
    *("move_mount", "open_tree", "mount_setattr", "unshare", "setns", "name_to_handle_at"),
    "open_by_handle_at",
    # interfaces to the kernel that a trial has no use for and that have had many holes
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("fanotify_init", "lookup_dcookie", "vhangup", "uselib", "ioperm", "iopl", "syslog", "quotactl"),
    *("quotactl_fd", "acct", "nfsservctl", "sysfs", "_sysctl"),
    # the machine
    *("reboot", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "swapon"),
    *("swapoff", "settimeofday", "clock_settime", "clock_settime64", "clock_adjtime", "adjtimex", "stime"),
    *("sethostname", "setdomainname"),
)
"""System calls that fail with EPERM at both levels."""

SHARED = (
    *("shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semtimedop", "semtimedop_time64", "semctl"),
    *("msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink", "ipc"),
)
"""System V's and POSIX's queues and memory: they outlive their process, and no limit of ours counts them."""

UNCOUNTED = ("memfd_create", "memfd_secret")
"""Memory that is resident nowhere. GPU drivers may need it."""

OWNERSHIP = (
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr"),
    "removexattrat",
)
"""What Landlock does not keep from files it hides: their modes, owners and attributes."""

NAMESPACES = 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00020000, 0x00000080
"""Flags of clone that make new namespaces."""

UNIX, INET, INET6, NETLINK, FAMILIES = 1, 2, 10, 16, 46
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
PR_SET_DUMPABLE = 4
MAP_SHARED_ANONYMOUS = 0x21


def is_available() -> bool:
    """Whether libseccomp can be loaded on this machine."""
    try:
        import pyseccomp  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def build(*, sockets: bool, on_cpu: bool) -> Any:
    """The filter as a `pyseccomp.SyscallFilter`.

    With `sockets` (level 1, where the network is a namespace of its own) local sockets can be made, but none
    of the families that no namespace confines. Without, no socket at all: Landlock does not confine UDP and
    UNIX sockets. `on_cpu` forbids memory that a process can hold without its being resident.
    """
    import pyseccomp as sc

    rules = sc.SyscallFilter(sc.ALLOW)

    def deny(name: str, *conditions: Any, code: int = errno.EPERM) -> None:
        if sc.resolve_syscall(sc.Arch.NATIVE, name) != -1:
            rules.add_rule(sc.ERRNO(code), name, *conditions)

    for name in (*DENIED, *SHARED, *(UNCOUNTED if on_cpu else ())):
        deny(name)
    if on_cpu:
        deny("mmap", sc.Arg(3, sc.MASKED_EQ, MAP_SHARED_ANONYMOUS, MAP_SHARED_ANONYMOUS))
    deny("prctl", sc.Arg(0, sc.EQ, PR_SET_DUMPABLE))  # it would hide its open files from whoever counts them
    for flag in NAMESPACES:
        deny("clone", sc.Arg(0, sc.MASKED_EQ, flag, flag))
    deny("clone3", code=errno.ENOSYS)  # its flags lie in memory; the C library then uses clone
    for request in (TIOCSTI, TIOCLINUX):
        deny("ioctl", sc.Arg(1, sc.MASKED_EQ, 0xFFFFFFFF, request))
    if sockets:
        for family in set(range(FAMILIES)) - {UNIX, INET, INET6, NETLINK}:
            deny("socket", sc.Arg(0, sc.EQ, family), code=errno.EACCES)
        deny("socket", sc.Arg(0, sc.GE, FAMILIES), code=errno.EACCES)
    else:
        deny("socket", code=errno.EACCES)
        for name in OWNERSHIP:
            deny(name)
    return rules
