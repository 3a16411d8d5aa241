"""`python -m asi_lab` is `asi-lab`."""

from asi_lab.cli import main

main()
