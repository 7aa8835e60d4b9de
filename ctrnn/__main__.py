"""`python -m ctrnn` is the command `ctrnn`."""

import sys

from ctrnn.cli import main

sys.exit(main())
