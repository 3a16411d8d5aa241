"""Make the recording that `asi-lab demo` plays out of a lab that was searched: python benchmarks/record.py
LAB

Only settings and store are taken, without what a viewer has no use for; where a model was reached is left
out.
"""

from __future__ import annotations

import re
import sys
import tarfile
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import lmdb
import msgspec

from asi_lab import __version__
from asi_lab.lab import Lab, Store
from asi_lab.records import SEED_ID
from asi_lab.tui.recorded import ABOUT, ARCHIVE, About

TUI = Path(__file__).parents[1] / "tui"


def main() -> None:
    lab = Lab(Path(sys.argv[1]))
    with Store.open_readonly(lab.store) as store:
        summaries = [summary for summary in store.summaries() if summary.id != SEED_ID]
        made = store.events()[0].time
    about = About(
        made=time.strftime("%Y-%m-%d", time.gmtime(made)),
        version=__version__,
        preset=lab.settings().preset,
        candidates=len(summaries),
        planned=sum(bool(summary.model) for summary in summaries),
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = Lab(Path(folder) / "lab")
        copy.store.mkdir(parents=True)
        with lmdb.open(str(lab.store), readonly=True, lock=False, max_dbs=32) as environment:
            environment.copy(str(copy.store), compact=True)
        text = re.sub(
            r'^(ollama_host|openai_base_url) = ".*"', r'\1 = ""', lab.config.read_text(), flags=re.M
        )
        copy.config.write_text(text)
        with tarfile.open(TUI / ARCHIVE, "w:xz", preset=9) as archive:
            for file in (copy.config, *sorted(copy.store.glob("data.mdb"))):
                archive.add(file, str(file.relative_to(folder)), filter=nobody)
    (TUI / ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=2) + b"\n")
    print(about, f"{(TUI / ARCHIVE).stat().st_size / 1e6:.2f} MB")


def nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Files of nobody in particular."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
