"""``python -m start_agent`` is the command ``start-agent``."""

import sys

from start_agent.cli.main import main

sys.exit(main())
