"""Which distributions are found, under which names and licences."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from installation import install, installed

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.installed.distributions import iter_distributions, standard_library
from hephaestus_jax.forge.installed.licences import spdx_licence

MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy\nof this software ..." + " x" * 40
BSD = "Redistribution and use in source and binary forms, with or without\nmodification, are permitted" + " x" * 40
APACHE = "                  Apache License\n            Version 2.0, January 2004\n" + " x" * 80


@pytest.mark.parametrize(
    ("expression", "licence", "classifiers", "texts", "expected"),
    [
        ("apache-2.0 or BSD-3-Clause", "MIT", [], [], "Apache-2.0 OR BSD-3-Clause"),
        (None, "Apache License, Version 2.0", [], [], "Apache-2.0"),
        (None, "Apache 2.0 License", [], [], "Apache-2.0"),
        (None, "Apache-2.0", [], [], "Apache-2.0"),
        (None, "3-Clause BSD License", [], [], "BSD-3-Clause"),
        (None, "MIT OR AFL-2.1", [], [], "MIT OR AFL-2.1"),
        (None, MIT, [], [], "MIT"),
        (None, "BSD", ["License :: OSI Approved :: BSD License"], [BSD], "BSD-2-Clause"),
        (None, "BSD", [], [BSD + " Neither the name of the author"], "BSD-3-Clause"),
        (None, None, ["License :: OSI Approved", "License :: OSI Approved :: MIT License"], [], "MIT"),
        (None, "BSD", ["License :: OSI Approved :: BSD License"], [], "BSD License"),
        (
            None,
            "Dual License",
            ["License :: OSI Approved :: BSD License", "License :: OSI Approved :: Apache Software License"],
            [BSD + " Neither the name of the author"],
            "Apache-2.0 AND BSD-3-Clause",
        ),
        (None, None, [], [APACHE], "Apache-2.0"),
        (None, "Ask the author", ["Topic :: Text Processing"], [], "Ask the author"),
        (None, None, [], ["Copyright 2020 Someone\nAll rights reserved by the crown.\n" + "x " * 100],
         "All rights reserved by the crown."),
        (None, "", [], [], "unknown"),
    ],
)  # fmt: skip
def test_licence(expression, licence, classifiers, texts, expected):
    assert spdx_licence(expression, licence, classifiers, texts) == expected


def test_bundled_licences_do_not_outweigh_the_own_one():
    own = BSD + " Neither the name of the author" + " y" * 3000
    assert spdx_licence(None, own + MIT + APACHE, []) == "BSD-3-Clause"


def test_distributions_are_sorted_and_carry_their_metadata(tmp_path: Path):
    install(tmp_path, "Zeta.Tools", {"zeta/__init__.py": "x = 1\n"}, "License-Expression: MIT", "# Zeta\n\nDoes.\n")
    install(tmp_path, "alpha", {"alpha.py": "y = 2\n", "../../../bin/alpha": "#!/bin/sh\n"})
    found = iter_distributions(paths=[str(tmp_path)])
    assert [d.name for d in found] == ["alpha", "python", "zeta-tools"]
    zeta = found[-1]
    assert (zeta.version, zeta.licence, zeta.host) == ("1.0", "MIT", "pypi.org/project/zeta-tools")
    assert zeta.description == "# Zeta\n\nDoes.\n"
    assert "zeta/__init__.py" in zeta.files
    assert zeta.root == tmp_path.resolve()
    assert not [f for f in found[0].files if f.startswith("..")], "scripts lie outside the site directory"
    assert zeta.provenance("zeta/__init__.py:1").source == "zeta-tools"


def test_a_file_listed_twice_belongs_to_the_first_distribution(tmp_path: Path):
    install(tmp_path, "b-second", {"google/__init__.py": "", "google/b.py": ""})
    install(tmp_path, "a-first", {"google/__init__.py": "", "google/a.py": ""})
    assert "google/__init__.py" in installed(tmp_path, "a-first").files
    # whether or not the other one is asked for, the answer is the same
    assert "google/__init__.py" not in installed(tmp_path, "b-second").files


def test_names_are_matched_in_any_spelling_and_unknown_ones_are_refused(tmp_path: Path):
    install(tmp_path, "Some_Package", {})
    found = iter_distributions(["some.package", "python"], [str(tmp_path)])
    assert [d.name for d in found] == ["python", "some-package"]
    with pytest.raises(UserError, match=r"not installed: nonesuch; install"):
        iter_distributions(["nonesuch", "some-package"], [str(tmp_path)])


def test_the_first_site_directory_wins(tmp_path: Path):
    install(tmp_path / "one", "pack", {"pack.py": ""}, "License-Expression: MIT")
    install(tmp_path / "two", "pack", {"pack.py": ""}, "License-Expression: ISC")
    (pack,) = iter_distributions(["pack"], [str(tmp_path / "one"), str(tmp_path / "two")])
    assert pack.licence == "MIT"


def test_standard_library():
    library = standard_library()
    assert (library.name, library.licence) == ("python", "PSF-2.0")
    assert library.version == ".".join(map(str, sys.version_info[:3]))
    assert "json/decoder.py" in library.files
    assert not [f for f in library.files if "site-packages" in f or "__pycache__" in f or "_sysconfigdata" in f]


def test_the_running_installation_is_found():
    names = [d.name for d in iter_distributions()]
    assert names == sorted(names)
    assert {"numpy", "pytest", "python"} <= set(names)
