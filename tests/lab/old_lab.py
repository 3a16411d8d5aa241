"""A lab as the first rules left it: eight candidates of a real search at the preset `micro`, and a ninth that
says it was evaluated but has no training. It ended every later start of its engine."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from asi_lab.lab import Lab

FILE = Path(__file__).with_name("lab_of_rules_1.msgpack.gz")
BROKEN = 9


def content() -> dict[str, Any]:
    """`tables` of the store (names to rows of key and value), `refs` of the lineage, and `lab.toml`."""
    return msgspec.msgpack.decode(gzip.decompress(FILE.read_bytes()))


def unpack(folder: Path) -> Lab:
    """Lay the lab out, without its lineage and its data."""
    lab, held = Lab(folder / "lab"), content()
    lab.store.mkdir(parents=True)
    lab.config.write_text(held["lab.toml"])
    names = (*held["tables"], "series", "exchanges", "ledger")
    with lmdb.open(str(lab.store), max_dbs=32, map_size=1 << 26, lib_version=0) as env:
        for name in names:
            table = env.open_db(name.encode())
            with env.begin(write=True, db=table) as txn:
                for key, value in held["tables"].get(name, ()):
                    txn.put(key, value)
    return lab
