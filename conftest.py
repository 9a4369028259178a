"""What tests and doctests share, wherever pytest is started: how numbers print, the header, threads."""

import os

import numpy as np
import torch
from pytest_astropy_header.display import PYTEST_HEADER_MODULES, TESTED_VERSIONS

import lenssr


def pytest_configure(config):
    PYTEST_HEADER_MODULES.clear()
    for name in ("numpy", "scipy", "astropy", "photutils", "torch", "matplotlib", "lenstronomy"):
        PYTEST_HEADER_MODULES[name] = name
    TESTED_VERSIONS["lenssr"] = lenssr.__version__
    if int(np.__version__.split(".")[0]) >= 2:
        # Examples show 0.5, as people write it and as NumPy 1 printed it, not np.float64(0.5).
        np.set_printoptions(legacy="1.25")
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Workers share the cores: more threads than cores make every one of them slower.
        torch.set_num_threads(1)
