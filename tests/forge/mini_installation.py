"""A small site-packages folder with two packages that know each other, for tests."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

ALPHA = {
    "alpha/__init__.py": '''
        """Alpha: settling of matrices and the counting of beans."""

        from alpha.settling import UnravelledSpline, frobnicate_matrix
        from alpha.counting import count_beans, weigh_beans

        __all__ = ["UnravelledSpline", "count_beans", "frobnicate_matrix", "weigh_beans"]
    ''',
    "alpha/settling.py": '''
        """Settling."""


        def frobnicate_matrix(matrix, patience=3):
            """Frobnicate every row of a matrix until its trace settles down.

            The rows are visited from the bottom upwards, and each visit halves the
            remaining defect of the diagonal.

            Args:
              matrix: rows of numbers, at least two of them.
              patience: how many visits to allow before giving up.

            Returns:
              The settled matrix, as a new list of rows.

            Raises:
              ValueError: the matrix has fewer than two rows.

            Examples:
              >>> frobnicate_matrix([[1, 2], [3, 4]])
              [[2, 4], [6, 8]]
            """
            if len(matrix) < 2:
                raise ValueError("too few rows")
            return [[2 * x for x in row] for row in matrix]


        class UnravelledSpline:
            """A spline whose knots have been pulled apart, one after the other, by hand.

            Args:
              knots: where the pieces meet.
            """

            def __init__(self, knots):
                self.knots = list(knots)

            def pull_apart_knots(self, force):
                """Pulls every knot away from its neighbours with the same gentle force.

                Args:
                  force: in newtons, positive outwards.
                """
                return [knot + force for knot in self.knots]
    ''',
    "alpha/counting.py": '''
        """Counting."""

        from alpha.settling import frobnicate_matrix as settle


        def count_beans(jars):
            """Counts the beans in all jars, broken ones included, and reports the sum.

            Args:
              jars: numbers of beans, one for each jar.

            Returns:
              The number of beans.

            Examples:
              >>> count_beans([1, 2, 3])
              6
              >>> count_beans([])
              0
            """
            return sum(jars)


        def weigh_beans(jars, grams=0.5):
            """Weighs the beans of all jars on a kitchen scale that is never quite level.

            See also frobnicate_matrix for matrices of beans.

            Args:
              jars: numbers of beans, one for each jar.
              grams: weight of one bean.

            Examples:
              >>> weigh_beans([2, 4])
              3.0
            """
            return grams * sum(jars)


        def settled_beans(jars):
            table = settle([jars, jars])
            return table[0]
    ''',
}
BETA = {
    "beta/__init__.py": '''
        """Beta."""
    ''',
    "beta/kitchen.py": '''
        """The kitchen."""

        import alpha as a
        from alpha import frobnicate_matrix

        SETTLED = a.frobnicate_matrix([[1, 2], [3, 4]])


        def stir_soup_slowly(pot, minutes):
            """Stirs a pot of soup slowly, always in the same direction, so that nothing burns.

            Args:
              pot: what to stir.
              minutes: for how long.
            """
            return f"{pot} stirred for {minutes} minutes"


        def taste_soup(pot, spoon=None):
            """Tastes the soup with a wooden spoon and says whether there is enough salt in it.

            Args:
              pot: what to taste.
              spoon: with which spoon.
            """
            return SETTLED if pot else frobnicate_matrix(pot)
    ''',
    "beta/notes.md": """
        # Notes on the kitchen

        Soup is stirred slowly and tasted often. A wooden spoon is better than one of steel, because it does not
        scratch the pot, and because it does not burn the mouth. This has been known for a very long time.

        Matrices are settled with alpha.frobnicate_matrix before they are served to the guests of the house.

        Beans are counted by hand. When the sum is wrong they are counted again, until two sums in a row agree.
    """,
}


def write_package(site: Path, name: str, files: Mapping[str, str], licence: str = "MIT", version: str = "1.0") -> None:
    """Writes a package with its metadata, as an installer would."""
    info = f"{name}-{version}.dist-info"
    contents = {file: textwrap.dedent(text).lstrip("\n") for file, text in files.items()}
    contents[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: {licence}\n"
        f"Classifier: License :: OSI Approved :: {licence} License\n\n"
    )
    contents[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in sorted([*contents, f"{info}/RECORD"]))
    for file, text in contents.items():
        path = site / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def write_installation(site: Path) -> Path:
    """Writes both packages."""
    write_package(site, "alpha", ALPHA)
    write_package(site, "beta", BETA, licence="GPLv3")
    return site
