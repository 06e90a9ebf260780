"""Reads one distribution: every Python file is parsed once, for documentation, code and text alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hephaestus_jax.forge.installed.distributions import Distribution
from hephaestus_jax.forge.installed.exports import Bindings, Exports, read_bindings
from hephaestus_jax.forge.installed.modules import parse_modules
from hephaestus_jax.forge.installed.prose import module_prose, read_prose
from hephaestus_jax.forge.installed.python_api import FoundApi, find_apis, with_public_name
from hephaestus_jax.forge.installed.sources import code_document, other_sources
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Document


@dataclass(frozen=True)
class ReadOptions:
    """What to read. Test files are left out unless `tests` is set."""

    docs: bool = True
    code: bool = True
    text: bool = True
    tests: bool = False


@dataclass
class Reading:
    """What one distribution holds, each list in the order of its files.

    `skipped` counts what was left out on purpose, by reason; what could not be read is in the quarantine.
    """

    distribution: Distribution
    apis: list[FoundApi] = field(default_factory=list)
    code: list[Document] = field(default_factory=list)
    text: list[Document] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def read_distribution(distribution: Distribution, options: ReadOptions, quarantine: Quarantine) -> Reading:
    """Reads the documentation, the sources and the prose of one distribution.

    Args:
        distribution: from `iter_distributions`.
        options: what to read.
        quarantine: receives files that cannot be read, decoded or parsed.
    """
    reading = Reading(distribution)
    if not any(file.endswith((".py", ".pyx")) for file in distribution.files):
        reading.skipped["distribution that lists no sources (installed as editable, or compiled)"] += 1
    bindings: list[Bindings] = []
    for module in parse_modules(distribution, quarantine, options.tests):
        # the trees of a large package would take gigabytes: each is used up before the next file is read
        if options.docs:
            bindings.append(read_bindings(module))
            reading.apis.extend(find_apis(module))
        if options.code and (document := code_document(module, reading.skipped)):
            reading.code.append(document)
        if options.text and (document := module_prose(module)):
            reading.text.append(document)
    exports = Exports(bindings)
    reading.apis = [with_public_name(api, exports) for api in reading.apis]
    if options.code:
        reading.code.extend(other_sources(distribution, quarantine, reading.skipped, options.tests))
    if options.text:
        reading.text = [*read_prose(distribution, quarantine, reading.skipped), *reading.text]
    return reading
