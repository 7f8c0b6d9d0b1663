"""`python -m pycnn.bench` is `pycnn bench`."""

import sys

from pycnn.bench import main

sys.exit(main())
