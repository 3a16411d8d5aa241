"""How a machine is shared out among the trials of a lab that go on at the same time.

On a machine with GPUs each slot has its own `train.ranks` of them, and its trial and scorer see no others. On
a CPU a slot has `train.threads` threads; where those are left to the machine, the cores are divided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from asi_lab.common.machine import find_nvml
from asi_lab.errors import ConfigError
from asi_lab.sandbox.policy import gpu_devices
from asi_lab.settings import Settings

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Allocation(msgspec.Struct, frozen=True):
    """What each slot has. `gpus` are its entries of CUDA_VISIBLE_DEVICES, empty for all that there are;
    `threads` are those of each rank; `crowded` says that there are more threads than cores."""

    gpus: tuple[tuple[str, ...], ...]
    threads: int
    crowded: bool = False

    @property
    def count(self) -> int:
        """How many slots there are."""
        return len(self.gpus)

    @property
    def words(self) -> str:
        """What is to be told of them; empty for a single one."""
        if self.count == 1:
            return ""
        threads = f"{self.threads} {'thread' if self.threads == 1 else 'threads'} each"
        where = " | ".join(",".join(gpus) for gpus in self.gpus if gpus)
        crowd = "; that is more than the machine has cores, so they will slow each other down"
        return (
            f"{self.count} trials at the same time, {threads}{f', on the GPUs {where}' if where else ''}"
            f"{crowd if self.crowded else ''}"
        )

    def settled(self, settings: Settings) -> Settings:
        """Settings with the numbers that were left to the machine."""
        search = msgspec.structs.replace(settings.search, slots=self.count)
        train = msgspec.structs.replace(settings.train, threads=self.threads)
        return msgspec.structs.replace(settings, search=search, train=train)


def visible_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that a process with this environment may use, as CUDA_VISIBLE_DEVICES names them: numbers,
    UUIDs or parts of a GPU. Without the variable NVIDIA's driver is asked how many there are."""
    if not gpu_devices():
        return ()
    if VISIBLE in environment:
        return listed(environment[VISIBLE])
    nvml = find_nvml()
    return () if nvml is None else tuple(map(str, range(nvml.nvmlDeviceGetCount())))


def listed(value: str) -> tuple[str, ...]:
    """The entries of CUDA_VISIBLE_DEVICES, as CUDA reads it: what follows an invalid one does not count."""
    found: list[str] = []
    for entry in (part.strip() for part in value.split(",")):
        if not entry or entry.startswith("-"):
            break
        found.append(entry)
    return tuple(found)


def share_out(settings: Settings, gpus: Sequence[str], cores: int) -> Allocation:
    """What each slot has of these GPUs, which a lab on the CPU leaves alone, and physical cores.

    Raises:
        ConfigError: there are not as many GPUs as the settings ask for.
    """
    wanted, train = settings.search.slots, settings.train
    gpus = () if settings.device == "cpu" else gpus
    if gpus:
        own = ranks = train.ranks or max(1, len(gpus) // (wanted or 1))
        count = wanted or max(1, len(gpus) // own)
    else:
        own, ranks = 0, max(1, train.ranks)
        count = wanted or max(1, cores // (ranks * (train.threads or cores)))
    if count == 1:
        return Allocation(((),), train.threads or max(1, cores // ranks))
    if settings.device == "cuda" and not gpus:
        raise ConfigError(
            f"search.slots: expected a GPU for each of {count} trials; found no list of GPUs. Name them in "
            f"{VISIBLE}, or set slots = 1."
        )
    if count * own > len(gpus):
        raise ConfigError(
            f"search.slots: expected at most {len(gpus) // own}, for {len(gpus)} GPUs and train.ranks = "
            f"{train.ranks}; found {count}."
        )
    threads = train.threads or max(1, cores // (count * ranks))
    shares = tuple(tuple(gpus[own * slot : own * (slot + 1)]) for slot in range(count))
    return Allocation(shares, threads, crowded=count * ranks * threads > cores)
