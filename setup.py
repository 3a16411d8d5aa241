"""Refuses to build where links of the source tree came out as files: the package would lack whole parts."""

from pathlib import Path

from setuptools import setup

BROKEN = [path.name for path in Path("asi_lab").iterdir() if path.is_file() and not path.suffix]

if BROKEN:
    raise SystemExit(
        f"asi_lab: expected links to folders of the repository; found files: {', '.join(sorted(BROKEN))}. "
        "Get it again where links can be made, with git clone -c core.symlinks=true."
    )
setup()
