"""Property tests look for new cases on a developer's machine, and repeat the same ones in continuous integration.

The small quickstart is run once, for every test that looks at what it left.
"""

import os

import pytest
from compiling import QUICK
from hypothesis import settings
from quickstart_run import Quickstart, run_quickstart

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

os.environ.setdefault("XLA_FLAGS", QUICK)  # before JAX compiles anything; see compiling.py


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    """The small quickstart, run to its end (about a minute); what it left is not to be changed."""
    folder = tmp_path_factory.mktemp("quickstart")
    done = run_quickstart(folder)
    assert done.returncode == 0, done.stdout[-5000:]
    return Quickstart(folder, done.stdout)
