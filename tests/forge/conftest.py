"""A package for the doctest sandbox to import; the standard library, looked for once."""

from __future__ import annotations

import functools
import textwrap
from pathlib import Path

import pytest

from hephaestus_jax.forge.installed import distributions

_STANDARD_LIBRARY = functools.cache(distributions.standard_library)


@pytest.fixture(autouse=True)
def quick_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks through the folder of the standard library once, not whenever distributions are looked for."""
    monkeypatch.setattr(distributions, "standard_library", _STANDARD_LIBRARY)


@pytest.fixture(scope="module")
def wares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small package that nobody has installed."""
    root = tmp_path_factory.mktemp("site")
    package = root / "wares"
    package.mkdir()
    (package / "__init__.py").write_text(
        textwrap.dedent(
            """
            import math as _math
            RATE = 3

            def price(count, each=2.0):
                if count < 0:
                    raise ValueError("count is negative")
                return count * each

            class Basket:
                def __init__(self, names): self.names = names
                def size(self): return len(self.names)
            """
        )
    )
    (package / "broken.py").write_text("raise RuntimeError('cannot be imported')\n")
    (package / "deadly.py").write_text("import os\nos._exit(7)\n")
    (package / "loud.py").write_text(
        "import os\nfor fd in range(1, 20):\n    try: os.write(fd, b'{\\n')\n    except OSError: 0\n"
    )
    (package / "held.py").write_text(
        textwrap.dedent(
            """
            import threading, time
            lock, held = threading.Lock(), threading.Event()

            def hold():  # long enough for a fork to copy the lock while it is taken
                with lock:
                    held.set()
                    time.sleep(1.5)

            threading.Thread(target=hold, daemon=True).start()
            held.wait()

            def use():
                with lock:
                    return "free"
            """
        )
    )
    return root
