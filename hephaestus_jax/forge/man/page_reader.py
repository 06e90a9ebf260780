"""The frame of the readers of both macro packages."""

from __future__ import annotations

from hephaestus_jax.forge.man.blocks import Builder, Page
from hephaestus_jax.forge.man.text import Roff


class PageReader:
    """Builds a page line by line."""

    def __init__(self) -> None:
        self.roff, self.builder = Roff(), Builder()

    def page(self, source: str) -> Page:
        """The blocks of a page."""
        for line in self.roff.lines(source):
            self.read(line)
        return self.builder.finish()

    def read(self, line: str) -> None:
        """One line."""
        raise NotImplementedError
