"""`python -m asi_lab.scorer`: the process that scores a candidate."""

import sys

from asi_lab.scorer.main import main

sys.exit(main())
