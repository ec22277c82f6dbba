"""What every test shares: shapes and types of our functions are checked while tests run."""

import os

# Before JAX starts: sharding tests need several devices, and two runs must agree.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from hypothesis import settings
from jaxtyping import install_import_hook

_hook = install_import_hook("gossamer", "beartype.beartype")

# The same examples in every run, so that a change is what makes a test fail. To look for new ones:
# `pytest --hypothesis-profile=default`.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
