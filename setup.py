"""Refuses to build where links of the source tree are missing or came out as files: the package would lack
whole parts."""

from pathlib import Path

from setuptools import setup

PARTS = ("cognition", "kernels", "lineage_repo", "prompts", "tui")
BROKEN = [name for name in PARTS if not Path("asi_lab", name).is_dir()]

if BROKEN:
    raise SystemExit(
        f"asi_lab: expected links to folders of the repository; found none for {', '.join(BROKEN)}. Get it "
        "again where links can be made, with git clone -c core.symlinks=true."
    )
setup()
