"""Settings of all tests."""

import os

# The tests run in one process for each core: more threads than that would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
