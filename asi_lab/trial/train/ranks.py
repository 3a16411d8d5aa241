"""One model trained by several processes of this machine, one GPU each.

Every rank holds the whole model and takes its rows of each batch; gradients are summed in float32 once a
step. The trial is rank 0: it starts the others, reports, checks and serves. They train and end with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor, nn

from asi_lab.protocol import TrialJob

MEETING_PLACE = "ranks"
"""The file in the working directory by which the ranks find each other."""

LONGEST_WAIT = timedelta(hours=6)
"""The others wait while rank 0 is measured at a mark or writes a checkpoint."""

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""The sandbox has no other network."""


class Ranks(Protocol):
    """The processes that train one model together, seen from one of them. The first of them `leads`."""

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes checkpoints."""

    def rows(self, tokens: Tensor) -> Tensor:
        """This rank's rows of a batch [B, L + 1]."""

    def add_up(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Replace the loss and the gradients of the parameters by their sums over all ranks."""


class Alone:
    """The only one."""

    leads = True

    def rows(self, tokens: Tensor) -> Tensor:
        """All of them."""
        return tokens

    def add_up(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """They are their own sums."""


class Group:
    """One of several."""

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        """Meet the others, in the working directory. Waits for all of them."""
        os.environ |= LOOPBACK
        self.rank, self.size, self.leads = rank, size, rank == 0
        meeting = f"file://{Path(MEETING_PLACE).absolute()}"
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=meeting,
            rank=rank,
            world_size=size,
            timeout=LONGEST_WAIT,
        )

    def rows(self, tokens: Tensor) -> Tensor:
        """Rank r takes rows r, r + size, r + 2 size, ..."""
        return tokens[self.rank :: self.size]

    def add_up(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """All-reduce, all at once. A parameter that this rank's rows had no use for counts as 0: all ranks
        must speak of the same ones."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        sums = [loss, *(p.grad for p in parameters)]
        for work in [dist.all_reduce(x, async_op=True) for x in sums]:
            assert work is not None
            work.wait()


def rank_count(job: TrialJob, device: torch.device) -> int:
    """Processes to train a job with: as set, or one for each GPU."""
    return job.train.ranks or (torch.cuda.device_count() if device.type == "cuda" else 1)


def device_of(rank: int, device: torch.device) -> torch.device:
    """Where a rank computes."""
    return torch.device("cuda", rank) if device.type == "cuda" else device


def start_others(job: TrialJob, size: int) -> None:
    """Start ranks 1 to `size` - 1, which read their job from standard input. Where one of them fails, this
    process ends too: it would wait forever."""
    for rank in range(1, size):
        command = [sys.executable, "-P", "-u", "-m", "asi_lab.trial.train.follower", str(rank), str(size)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(msgspec.json.encode(job) + b"\n")
        threading.Thread(target=_end_with, args=(process, rank), daemon=True).start()


def _end_with(process: subprocess.Popen[bytes], rank: int) -> None:
    code = process.wait()
    if code != 0:
        print(f"rank {rank} ended with status {code}", file=sys.stderr, flush=True)
        os._exit(1)
