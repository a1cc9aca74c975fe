"""``python -m ser_lightning.cli``."""

import sys

from ser_lightning.cli.main import main

sys.exit(main())
