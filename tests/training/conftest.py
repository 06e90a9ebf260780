import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_run import Command, write_mixture


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of the small run's mixture.json; not to be changed."""
    return write_mixture(tmp_path_factory.mktemp("mixture"))


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory, mixture: str) -> Command:
    """The train command on the small mixture."""
    return Command(tmp_path_factory.mktemp("command"), mixture)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """The run directory of ten steps without a break."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    command(run_dir, "LoggingConfig.tensorboard=True")
    return run_dir
