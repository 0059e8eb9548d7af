"""One thread for each process of the tests: they share two cores, and threads of tiny models wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
