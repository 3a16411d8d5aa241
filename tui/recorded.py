"""The recording that is packaged: the lab of a real search by this program's own engine, without its text,
weights and git repository (`asi-lab fsck --repair` makes the last one again)."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from importlib import resources
from pathlib import Path

import msgspec
import platformdirs

from asi_lab.common import disk
from asi_lab.errors import DiskError
from asi_lab.lab import Lab

ARCHIVE, ABOUT = "recording.tar.xz", "recording.json"


class About(msgspec.Struct, frozen=True):
    """What the recording is of: when it was made and by which version, the preset, its candidates, and how
    many of them a language model has planned."""

    made: str
    version: str
    preset: str
    candidates: int
    planned: int


def about() -> About:
    """What the recording is of."""
    return msgspec.json.decode((resources.files("asi_lab.tui") / ABOUT).read_bytes(), type=About)


def title() -> str:
    """What the header says of it."""
    found = about()
    return f"recorded {found.made} by asi-lab's own engine, preset {found.preset}"


def unpacked() -> Lab:
    """The recorded lab, in the user's cache; it is put there once.

    Raises:
        DiskError: that place cannot be written.
    """
    packed = (resources.files("asi_lab.tui") / ARCHIVE).read_bytes()
    place = platformdirs.user_cache_path("asi-lab") / f"demo-{hashlib.sha256(packed).hexdigest()[:12]}"
    lab = Lab(place / "lab")
    if lab.has_results():
        return lab
    try:
        _unpack(packed, place)
    except OSError as error:
        raise DiskError(f"The recording cannot be unpacked. {disk.explain(error, place)}") from None
    return lab


def _unpack(packed: bytes, place: Path) -> None:
    """Whole or not at all, also beside another that does the same."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        archive, fresh = Path(folder) / ARCHIVE, Path(folder) / "demo"
        archive.write_bytes(packed)
        with tarfile.open(archive) as opened:
            if hasattr(tarfile, "data_filter"):  # since Python 3.11.4; the archive is our own
                opened.extraction_filter = tarfile.data_filter
            opened.extractall(fresh)
        if place.exists() and not Lab(place / "lab").has_results():
            shutil.rmtree(place)  # left by one that was cut off
        if not place.exists():
            fresh.rename(place)
