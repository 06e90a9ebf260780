"""The sources of the corpus, one file each: importing this package registers all of them."""

from __future__ import annotations

import importlib
import pkgutil

from hephaestus_jax.forge.sources.source import SOURCES, Origin, Package, Source, SourceFile, source

__all__ = ["SOURCES", "Origin", "Package", "Source", "SourceFile", "source"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
