"""Randomness keyed by what it is for, so that a killed and resumed search draws the same again."""

from __future__ import annotations

import hashlib
import random


def keyed_seed(lab_seed: int, *key: object) -> int:
    """A 63-bit seed that depends on the lab's seed and the key alone, such as (42, "init")."""
    text = "\x1f".join([str(lab_seed), *map(str, key)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def keyed_random(lab_seed: int, *key: object) -> random.Random:
    """A generator seeded by `keyed_seed`."""
    return random.Random(keyed_seed(lab_seed, *key))
