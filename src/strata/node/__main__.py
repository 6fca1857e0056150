"""`python -m strata.node` and the zipapp's entry."""

import sys

from strata.node.cli import main

sys.exit(main())
