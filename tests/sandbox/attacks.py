"""Attacks on the sandbox, run as the program of a trial, and what each level is expected to hold.

An attack is a script that finds its victims in `V` and tells the supervisor that it is ready. `open_at` are
the levels at which it is expected to succeed. Whether it was held is read off the world afterwards.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psutil

from asi_lab import protocol
from asi_lab.engineer.executor import LocalTrio
from asi_lab.engineer.supervise import Supervision, run
from asi_lab.records import CandidateState, Evidence
from asi_lab.sandbox import Level, Policy, Sandbox
from asi_lab.sandbox.command import can_leave_root
from tests.engineer import scripts

CANARY = "canary-3f9c1d"
ALL_OPEN = frozenset({Level.LIMITS})
NOWHERE: frozenset[Level] = frozenset()
LIMITS = {
    "trial_seconds": 3.0,
    "stall_seconds": 3.0,
    "memory_gb": 0.5,
    "disk_gb": 0.05,
    "processes": 60,
    "log_mb": 0.5,
}

PRELUDE = """
import json, os, signal, socket, sys, time
V = json.loads(sys.argv[1])
report_fd = int(sys.argv[sys.argv.index("--report-fd") + 1])
def report(text):
    os.write(report_fd, text.encode() + b"\\n")
report('{"type": "ready"}')
"""


@dataclass
class World:
    """What an attack is let loose on: files of the user, another program, listeners, and a place to start."""

    folder: Path
    secret: Path = field(init=False)

    def __post_init__(self) -> None:
        for name in (".ssh", "store", "lineage_repo/.git/hooks", "data", "trials/0001", "slot", "candidate"):
            (self.folder / name).mkdir(parents=True)
        self.secret = self.folder / ".ssh/id_rsa"
        self.files = {
            "secret": self.secret,
            "outside": self.folder / "outside.txt",
            "store": self.folder / "store/data.mdb",
            "hook": self.folder / "lineage_repo/.git/hooks/post-commit",
            "labels": self.folder / "data/validation.bin",
            "other": self.folder / "trials/0001/architecture.py",
        }
        for path in self.files.values():
            path.write_text(CANARY)
            path.chmod(0o600)
        (self.folder / "candidate/architecture.py").write_text("")
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(str(self.folder / "socket"))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0{self.folder}")
        for server in (self.unix, self.abstract):
            server.listen()
        for listener in (self.tcp, self.udp, self.unix, self.abstract):
            listener.setblocking(False)
        self.victim = self._bystander()

    def _bystander(self) -> subprocess.Popen[bytes]:
        """Another program of the user, with a key in its environment and without root's privileges."""
        (self.folder / "bystander").mkdir()
        policy = Policy(str(self.folder / "bystander"))
        code = "import time; key = input(); print('up', flush=True); time.sleep(1000)"
        command = Sandbox(Level.LIMITS).command(
            policy, [sys.executable, "-c", code], {"OPENAI_API_KEY": CANARY, "PATH": os.defpath}
        )
        process = subprocess.Popen(
            command.argv, env=command.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"in memory\n")
        process.stdin.flush()
        process.stdout.readline()
        return process

    @property
    def victim_pid(self) -> int:
        """The bystander itself, behind its guard."""
        return psutil.Process(self.victim.pid).children()[0].pid

    def close(self) -> None:
        for listener in (self.tcp, self.udp, self.unix, self.abstract):
            listener.close()
        self.victim.terminate()
        self.victim.wait()
        self.victim.stdin.close()
        self.victim.stdout.close()

    def reached(self, listener: socket.socket) -> bool:
        """Whether something came in."""
        try:
            (listener.recv if listener.type == socket.SOCK_DGRAM else lambda _: listener.accept())(1000)
        except BlockingIOError:
            return False
        return True

    def unchanged(self) -> bool:
        """Whether all files are as they were."""
        return all(
            path.read_text() == CANARY and path.stat().st_mode & 0o777 == 0o600
            for path in self.files.values()
        )


@dataclass(frozen=True)
class Outcome:
    """What came of an attack."""

    evidence: Evidence
    log: str
    log_bytes: int
    seconds: float
    left: tuple[str, ...]
    """Command lines of processes that outlived the trial."""


Held = Callable[[World, Outcome], bool]


@dataclass(frozen=True)
class Attack:
    """`code` runs behind `PRELUDE`; `held` says afterwards whether it was held."""

    name: str
    code: str
    held: Held
    open_at: frozenset[Level] = ALL_OPEN
    needs_a_limit: bool = False
    """Too dangerous to try where the kernel does not limit processes: for root that cannot become another."""


def is_safe(attack: Attack, level: Level) -> bool:
    """Whether the machine survives the attack at a level even if the level does not hold it."""
    return not attack.needs_a_limit or os.geteuid() != 0 or can_leave_root(level)


def perform(attack: Attack, level: Level, folder: Path) -> tuple[bool, Outcome]:
    """Let one attack loose at a level; returns whether it was held, and what came of it."""
    world = World(folder)
    try:
        outcome = _perform(attack, level, world)
        return attack.held(world, outcome), outcome
    finally:
        world.close()


def _perform(attack: Attack, level: Level, world: World) -> Outcome:
    tag = f"attack-{os.getpid()}-{world.folder.name}"
    victims = {name: str(path) for name, path in world.files.items()} | {
        "tcp": world.tcp.getsockname()[1],
        "udp": world.udp.getsockname()[1],
        "unix": str(world.folder / "socket"),
        "abstract": f"\0{world.folder}",
        "pid": world.victim_pid,
        "engine": os.getpid(),
        "tag": tag,
        "canary": CANARY,
    }
    program = (sys.executable, "-S", "-c", PRELUDE + attack.code, msgspec.json.encode(victims).decode())
    job = scripts.job(marks=(), **LIMITS)
    limits = job.limits
    gigabyte = 2**30
    policy = Policy(
        "",
        memory_bytes=gigabyte,
        file_bytes=int(limits.disk_gb * gigabyte),
        processes=limits.processes,
        cpu_seconds=60,
    )
    trio = LocalTrio(world.folder / "slot", Sandbox(level), policy, scored=False, programs={"trial": program})
    directory, started = world.folder / "candidate", time.monotonic()
    evidence = run(trio, job, None, directory, Supervision())
    seconds = time.monotonic() - started
    log = directory / "trial.log"
    deadline = time.monotonic() + 3
    while (left := _alive(tag)) and time.monotonic() < deadline:  # the kernel may still be at it
        time.sleep(0.1)
    return Outcome(evidence, log.read_text(errors="replace"), log.stat().st_size, seconds, left)


def _alive(tag: str) -> tuple[str, ...]:
    """Command lines that hold the tag, of processes that are not dead."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or ())
        if tag in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(line[-60:])
    return tuple(found)


def secret_kept(world: World, outcome: Outcome) -> bool:
    return CANARY not in outcome.log


def files_kept(world: World, outcome: Outcome) -> bool:
    return world.unchanged()


def nobody_left(world: World, outcome: Outcome) -> bool:
    return not outcome.left and outcome.seconds < 30


def ended_in_time(world: World, outcome: Outcome) -> bool:
    timed_out = outcome.evidence.failure is CandidateState.TIMED_OUT
    return timed_out and outcome.seconds < LIMITS["trial_seconds"] + 5 and not outcome.left


def bystander_lives(world: World, outcome: Outcome) -> bool:
    return world.victim.poll() is None and psutil.Process(world.victim_pid).status() != psutil.STATUS_STOPPED


def silent(name: str) -> Held:
    return lambda world, outcome: not world.reached(getattr(world, name))


def within(figure: Callable[[Outcome], float], limit: float) -> Held:
    return lambda world, outcome: figure(outcome) <= limit and nobody_left(world, outcome)


def last_number(outcome: Outcome) -> float:
    """The last whole number that the attack printed."""
    found = [line for line in outcome.log.splitlines() if line.strip().isdigit()]
    return float(found[-1]) if found else 0.0


def not_scored(world: World, outcome: Outcome) -> bool:
    return outcome.evidence.evaluation is None


def checkpoint_refused(world: World, outcome: Outcome) -> bool:
    stolen = world.folder / "candidate" / protocol.CHECKPOINT_FILE
    return not os.path.lexists(stolen) and outcome.evidence.failure is CandidateState.FORGED


def reported(*lines: scripts.Line) -> str:
    """Code that says all of this and then waits."""
    texts = [protocol.encoder.encode(report).decode() for _, report in lines]
    return f"for text in {texts!r}:\n    report(text)\ntime.sleep(60)\n"


TRAINED = reported(*scripts.BEGUN[1:], *scripts.steps(marks=()), scripts.AGAIN, scripts.TRAINED)
TRY = """
def attempt(act):
    try:
        print(act(), flush=True)
    except BaseException as error:
        print(type(error).__name__, error, flush=True)
"""

BLOCK_BYTES, BLOCKS = 2**25, 17
"""More than a trial may keep resident, of pieces that fit into one file."""


def hoard(name: str, code: str, open_at: frozenset[Level] = ALL_OPEN) -> Attack:
    """An attack that holds block after block in a place, by its function `hold`, and counts them."""
    loop = (
        f"BLOCK, count = bytes([7]) * {BLOCK_BYTES}, 0\n{code}"
        f"for i in range({BLOCKS}):\n    try:\n        hold(i)\n    except (OSError, AssertionError):\n"
        f"        break\n    count += 1\n    time.sleep(0.02 if count < {BLOCKS} else 0.7)\n"
        "    print(count, flush=True)\n"
    )
    return Attack(f"hold memory or disk {name}", loop, held_little, open_at)


def held_little(world: World, outcome: Outcome) -> bool:
    """Not all blocks, and nothing that stays."""
    left = [file for place in ("/dev/shm", "/tmp", "/dev", "/") for file in Path(place).glob("attack-*-*-*")]
    for file in left:
        file.unlink()
    return not left and last_number(outcome) < BLOCKS and nobody_left(world, outcome)


ATTACKS = (
    # secrets
    Attack("read ~/.ssh", TRY + "attempt(lambda: open(V['secret']).read())", secret_kept),
    Attack(
        "read an API key from environments",
        TRY
        + "print(dict(os.environ))\n"
        + "seen = os.listdir('/proc') if os.access('/proc', os.R_OK) else []\n"
        + "for pid in [*filter(str.isdigit, seen), V['pid']]:\n"
        + "    attempt(lambda: open(f'/proc/{pid}/environ').read())\n",
        secret_kept,
    ),
    Attack("read held-out labels", TRY + "attempt(lambda: open(V['labels']).read())", secret_kept),
    Attack("read another candidate", TRY + "attempt(lambda: open(V['other']).read())", secret_kept),
    Attack(
        "read the memory of another program",
        TRY
        + "import ctypes\n"
        + "def peek():\n"
        + "    maps = open(f'/proc/{V[\"pid\"]}/maps').read().splitlines()\n"
        + "    line = next(line for line in maps if '[stack]' in line)\n"
        + "    start, end = (int(x, 16) for x in line.split()[0].split('-'))\n"
        + "    with open(f'/proc/{V[\"pid\"]}/mem', 'rb') as memory:\n"
        + "        memory.seek(start)\n"
        + "        return memory.read(end - start)\n"
        + "attempt(peek)\n",
        secret_kept,
    ),
    Attack(
        "follow a link out of the directory",
        TRY + "os.symlink(V['secret'], 'link'); attempt(lambda: open('link').read())",
        secret_kept,
    ),
    # changes
    Attack("write outside", TRY + "attempt(lambda: open(V['outside'], 'w').write('x'))", files_kept),
    Attack("write into the store", TRY + "attempt(lambda: open(V['store'], 'r+').write('x'))", files_kept),
    Attack("write into the lineage", TRY + "attempt(lambda: open(V['hook'], 'a').write('x'))", files_kept),
    Attack(
        "delete outside",
        TRY + "attempt(lambda: os.unlink(V['outside']))",
        lambda w, o: w.files["outside"].exists() and w.unchanged(),
    ),
    Attack(
        "rename outside",
        TRY + "attempt(lambda: os.rename(V['store'], V['store'] + '.old'))",
        lambda w, o: w.files["store"].exists(),
    ),
    Attack("change modes outside", TRY + "attempt(lambda: os.chmod(V['secret'], 0o644))", files_kept),
    Attack(
        "mount and make namespaces",
        TRY
        + "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        + "print(libc.unshare(0x10020000), libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), flush=True)\n"
        + "attempt(lambda: open('/proc/self/uid_map', 'w').write('0 0 1'))\n",
        lambda w, o: "-1 -1" in o.log,
    ),
    # network and other programs
    Attack(
        "connect by TCP",
        TRY + "attempt(lambda: socket.create_connection(('127.0.0.1', V['tcp']), 2))",
        silent("tcp"),
    ),
    Attack(
        "ask a name server (UDP)",
        TRY
        + "def query():\n"
        + "    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'query', ('127.0.0.1', V['udp']))\n"
        + "attempt(query)\n"
        + "attempt(lambda: socket.getaddrinfo('example.org', 80))\n",
        silent("udp"),
    ),
    Attack(
        "connect to a local socket by path",
        TRY + "attempt(lambda: socket.socket(socket.AF_UNIX).connect(V['unix']))",
        silent("unix"),
    ),
    Attack(
        "connect to an abstract local socket",
        TRY + "attempt(lambda: socket.socket(socket.AF_UNIX).connect(V['abstract']))",
        silent("abstract"),
    ),
    Attack(
        "kill another program", TRY + "attempt(lambda: os.kill(V['pid'], signal.SIGKILL))", bystander_lives
    ),
    Attack(
        "stop another program", TRY + "attempt(lambda: os.kill(V['pid'], signal.SIGSTOP))", bystander_lives
    ),
    Attack(
        "kill the parent",
        "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)\n",
        nobody_left,
        NOWHERE,
    ),
    Attack(
        "write into its guard",
        TRY + "attempt(lambda: open(f'/proc/{os.getppid()}/mem', 'r+b') and 'opened')",
        lambda w, o: "opened" not in o.log,
        NOWHERE,
    ),
    # resources
    Attack("fork bomb", "while True:\n    os.fork()\n", nobody_left, NOWHERE, needs_a_limit=True),
    Attack(
        "fork bomb that leaves its group",
        "while True:\n    os.fork()\n    os.fork() or os.setsid()\n",
        nobody_left,
        NOWHERE,
        needs_a_limit=True,
    ),
    Attack(
        "allocate 50 GB",
        "held = []\nfor i in range(1, 501):\n    held.append(bytearray(b'x') * 10**8)\n"
        "    print(i, flush=True)\n",
        within(last_number, 20),
        NOWHERE,
    ),
    hoard(
        "in memory without a name",
        "def hold(i):\n    file = os.memfd_create(str(i))\n    os.write(file, BLOCK)\n",
        NOWHERE,
    ),
    hoard(
        "in shared memory that it looks away from",
        "import mmap\nheld = []\ndef hold(i):\n    held.append(mmap.mmap(-1, len(BLOCK)))\n"
        "    held[-1].write(BLOCK)\n    held[-1].madvise(mmap.MADV_DONTNEED)\n",
    ),
    hoard("in /dev/shm", "def hold(i):\n    open(f'/dev/shm/{V[\"tag\"]}-{i}', 'wb').write(BLOCK)\n"),
    hoard("in /", "def hold(i):\n    open(f'/{V[\"tag\"]}-{i}', 'wb').write(BLOCK)\n"),
    hoard("in /dev", "def hold(i):\n    open(f'/dev/{V[\"tag\"]}-{i}', 'wb').write(BLOCK)\n"),
    hoard("in /tmp", "def hold(i):\n    open(f'/tmp/{V[\"tag\"]}-{i}', 'wb').write(BLOCK)\n"),
    hoard(
        "in System V's segments",
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.shmat.restype = ctypes.c_void_p\n"
        "def hold(i):\n    number = libc.shmget(0, len(BLOCK), 0o1600)\n    assert number >= 0\n"
        "    place = libc.shmat(number, None, 0)\n    libc.shmctl(number, 0, None)\n"
        "    ctypes.memmove(place, BLOCK, len(BLOCK))\n"
        "    libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(len(BLOCK)), 4)\n",
    ),
    hoard(
        "in files that it deletes",
        "held = []\ndef hold(i):\n    held.append(open(str(i), 'wb', buffering=0))\n    os.unlink(str(i))\n"
        "    for _ in range(4):\n        held[-1].write(BLOCK[:2**23])\n",
        NOWHERE,
    ),
    hoard(
        "in files that it deletes, hiding what it has open",
        "import ctypes\nctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n"
        "held = []\ndef hold(i):\n    held.append(open(str(i), 'wb', buffering=0))\n    os.unlink(str(i))\n"
        "    for _ in range(4):\n        held[-1].write(BLOCK[:2**23])\n",
        NOWHERE if os.geteuid() == 0 else ALL_OPEN,
    ),
    Attack("endless loop", "while True:\n    pass\n", ended_in_time, NOWHERE),
    Attack(
        "ignore every signal",
        "for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "while True:\n    pass\n",
        ended_in_time,
        NOWHERE,
    ),
    Attack(
        "leave a daemon behind",
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(1000)\n"
        "    os._exit(0)\nos.wait()\n",
        nobody_left,
        NOWHERE,
    ),
    Attack(
        "fill the disk by one file",
        "with open('big', 'wb') as file:\n    for i in range(1000):\n        file.write(b'x' * 10**7)\n"
        "        file.flush()\n        print(i, flush=True)\n",
        within(last_number, 6),
        NOWHERE,
    ),
    Attack(
        "fill the disk by many files",
        "for i in range(2000):\n    with open(f'{i}.bin', 'wb') as file:\n        file.write(b'x' * 10**7)\n"
        "    print(i, flush=True)\n    time.sleep(0.05)\n",
        within(last_number, 40),
        NOWHERE,
    ),
    Attack(
        "make files without number",
        "i = 0\nwhile True:\n    open(f'{i}.txt', 'w').close()\n    i += 1\n",
        lambda w, o: nobody_left(w, o) and not (w.folder / "slot").exists(),
        NOWHERE,
    ),
    Attack(
        "print without end",
        "while True:\n    print('x' * 10**6)\n",
        within(lambda o: o.log_bytes, 60 * 2**20),
        NOWHERE,
    ),
    Attack(
        "report without end", "while True:\n    os.write(report_fd, b'x' * 10**6)\n", nobody_left, NOWHERE
    ),
    # results
    Attack("forge the result line", reported(scripts.SCORED), not_scored, NOWHERE),
    Attack(
        "leave a link as checkpoint",
        "os.symlink(V['secret'], 'checkpoint.safetensors')\n" + TRAINED,
        checkpoint_refused,
        NOWHERE,
    ),
    Attack(
        "leave a directory as checkpoint",
        "os.mkdir('checkpoint.safetensors')\n" + TRAINED,
        checkpoint_refused,
        NOWHERE,
    ),
    Attack(
        "leave a pipe as checkpoint",
        "os.mkfifo('checkpoint.safetensors')\n" + TRAINED,
        checkpoint_refused,
        NOWHERE,
    ),
    Attack(
        "leave a second name as checkpoint",
        "open('other', 'w').close(); os.link('other', 'checkpoint.safetensors')\n" + TRAINED,
        checkpoint_refused,
        NOWHERE,
    ),
)
"""All attacks. What a real trial does to loss and evaluation is tested with real trials."""
