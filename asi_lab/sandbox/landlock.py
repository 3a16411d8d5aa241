"""Level 2: the kernel's Landlock rules, by its three system calls (Linux 5.13 and newer).

Written against the kernel's own interface (Documentation/userspace-api/landlock.rst).
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from asi_lab.sandbox.policy import is_below

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
TRUNCATE, IOCTL_DEVICE = 1 << 14, 1 << 15
READ = EXECUTE | READ_FILE | READ_DIR
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE
TCP_BIND_AND_CONNECT = 3
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1

FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""ABI version, and how many rights on files exist from it on: bits 0 to n - 1."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def abi() -> int:
    """The version of the kernel's interface, 0 where Landlock is missing or switched off."""
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    except OSError:
        return 0


def restrict(
    readable: Iterable[str], writable: Iterable[str], devices: Iterable[str], hidden: Iterable[str] = ()
) -> None:
    """Confine this process for good, with all it starts: files, TCP, and, where the kernel can, signals.

    `readable` can be read and executed, but for what is `hidden` below, whose names can be listed;
    `writable` can also be changed, `devices` opened. Paths that do not exist are passed over.

    Raises:
        OSError: the kernel refuses. The process must set `no_new_privs` first.
    """
    version = abi()
    rights = (1 << max(bits for since, bits in FILE_RIGHTS.items() if since <= version)) - 1
    ruleset = _Ruleset(
        rights,
        TCP_BIND_AND_CONNECT if version >= 4 else 0,
        (ABSTRACT_SOCKETS | SIGNALS) if version >= 6 else 0,
    )
    descriptor = _call(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(ctypes.sizeof(ruleset)), 0)
    try:
        concealed = [os.path.realpath(path) for path in hidden]
        for path in readable:
            for shown, allowed in _shown(os.path.realpath(path), concealed):
                _allow(descriptor, shown, allowed & rights)
        for path in writable:
            _allow(descriptor, path, rights & ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEVICE))
        for path in devices:
            _allow(descriptor, path, (READ | WRITE_FILE | IOCTL_DEVICE) & ~EXECUTE & rights)
        _call(_RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)


def _shown(path: str, hidden: list[str]) -> Iterator[tuple[str, int]]:
    """The rules that show a path without what is hidden below. Rules only ever add rights, so a folder that
    holds something hidden is listed alone, and each of its entries gets a rule. Links need none: what they
    lead to has its own or is not shown."""
    if is_below(path, hidden):
        return
    if not any(is_below(other, [path]) for other in hidden):
        yield path, READ
        return
    yield path, READ_DIR
    for entry in Path(path).iterdir():
        if not entry.is_symlink():
            yield from _shown(str(entry), hidden)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= ON_FILES
        rule = _PathBeneath(rights, descriptor)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)
