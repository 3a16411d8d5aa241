"""`python -m asi_lab.trial`: the process that trains a candidate."""

import sys

from asi_lab.trial.main import main

sys.exit(main())
