"""Cuts held-out APIs out of Python source, and leaves it parseable.

What goes, for every word that shows a held-out API (its own names, and names that a cut statement bound):

- a definition with its decorators, when the word is its name or stands in its header;
- one name of an import, one element of a list, set or dictionary at module or class level (`__all__` and the like);
- the lines of a docstring or other triple-quoted string, and the comment, that hold it;
- an expression statement or assertion; any other statement of a function takes the whole function with it, since what
  follows would use a name that nothing binds;
- any other statement at module or class level, and then whatever uses the names that it bound;
- a block (`if`, `try`, `with`, a loop) whose head holds it or that would be left empty.
"""

from __future__ import annotations

import ast
import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hephaestus_jax.forge.cut_text import cut_text
from hephaestus_jax.forge.python_source import Definition, Edit, Source, Unparseable, apply, disjoint, parse

_ROUNDS = 12  # a chain of names bound to names; longer ones fall to the coarse cut
_TRIPLE = re.compile(r"(?i)(?:r|u|b|br|rb)?(\"\"\"|''')")
_CLOSING = re.compile(r"\s*\)")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class PythonCut:
    """Source without what had to go, and how many definitions and other pieces went."""

    text: str
    definitions: int
    pieces: int


def cut_python(text: str, offsets: Sequence[int], words: frozenset[str]) -> PythonCut | None:
    """`text` without the pieces that `offsets` point into and that use what those bound.

    Args:
        text: Python source with "\\n" line ends.
        offsets: character offsets of the words that must go.
        words: names of held-out APIs: a definition so called counts as one.

    Returns:
        None when nothing parseable can be left.

    Raises:
        Unparseable: the text is not Python to begin with.
    """
    source = Source(text, parse(text), offsets)
    for edits in _attempts(source, set(offsets), words):
        kept = disjoint(edits)
        made = apply(text, kept)
        try:
            parse(made)
        except Unparseable:
            continue
        definitions = sum(edit.is_definition for edit in kept)
        return PythonCut(made, definitions, len(kept) - definitions)
    return None


def _attempts(source: Source, hits: set[int], words: frozenset[str]) -> Iterator[list[Edit]]:
    """The fine cut, and a coarse one in case that something does not parse after the fine one."""
    for _ in range(_ROUNDS):
        cutter = _Cutter(source, sorted(hits), words)
        cutter.module()
        more = hits | cutter.uses_of_lost_names()
        if more == hits:
            yield cutter.edits
            break
        hits = more
    yield source.top_level_edits(hits, words)


class _Cutter:
    """One pass over a source: which edits remove `hits`, and which names are lost by them."""

    def __init__(self, source: Source, hits: Sequence[int], words: frozenset[str]) -> None:
        self.source, self.words = source, words
        comments = {hit: place for hit in hits if (place := source.comment_at(hit))}
        self.edits = [source.comment_removal(*place) for place in sorted(set(comments.values()))]
        self._hits = [hit for hit in hits if hit not in comments]
        self._lost: set[str] = set()  # module-level names that cut statements bound
        self._lost_attributes: dict[ast.ClassDef, set[str]] = {}

    def module(self) -> None:
        """Cuts the whole module."""
        self._block(self.source.tree.body, None)

    def _in(self, span: tuple[int, int]) -> list[int]:
        return self._hits[bisect.bisect_left(self._hits, span[0]) : bisect.bisect_left(self._hits, span[1])]

    # Blocks at module and class level. `owner` is the class whose body it is, None in the module.

    def _block(self, body: Sequence[ast.stmt], owner: ast.ClassDef | None) -> bool:
        """Cuts a block; False when nothing of it is left. Its edits are then void, the caller cuts it as a whole."""
        left = len(body)
        for statement in body:
            if self._in(self.source.span(statement)) and not self._keep(statement, owner):
                self._remove(statement, owner)
                left -= 1
        return left > 0

    def _remove(self, statement: ast.stmt, owner: ast.ClassDef | None) -> None:
        self.edits.append(self.source.removal(statement, self.words))
        names = self._lost_by(statement)
        if owner is None:
            self._lost |= {name for name in names if "." not in name}
        else:
            attributes = {name.removeprefix("self.") for name in names}
            self._lost_attributes.setdefault(owner, set()).update(attributes)

    def _lost_by(self, statement: ast.stmt) -> set[str]:
        """Names (and "self.x" in methods) that held-out APIs gave to what the removed statement bound.

        A function that merely used one keeps its name and its callers.
        """
        if not self._in(self.source.span(statement)):
            return set()
        if isinstance(statement, Definition):
            inner = (node for node in ast.walk(statement) if isinstance(node, ast.Assign | ast.AnnAssign))
            return {name for node in inner if self._in(self.source.span(node)) for name in _own_attributes(node)}
        if blocks := _blocks(statement):
            names = {name for block in blocks for child in block for name in self._lost_by(child)}
            return names | (_head_names(statement) if self._in_head(statement) else set())
        return _bound_names(statement)

    def _keep(self, statement: ast.stmt, owner: ast.ClassDef | None) -> bool:
        """Cuts inside a statement of a module or class; False when the statement has to go as a whole."""
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return not self._in_head(statement) and self._function_block(statement.body)
            case ast.ClassDef():
                return not self._in_head(statement) and self._block(statement.body, statement)
            case ast.Import() | ast.ImportFrom():
                return self._import(statement, owner)
        blocks = _blocks(statement)
        if blocks:
            return not self._in_head(statement) and all([self._block(block, owner) for block in blocks])
        return self._strings(statement) or self._elements(statement)

    def _in_head(self, statement: ast.stmt) -> bool:
        """Whether a compound statement is hit outside its blocks."""
        inner = [self.source.span(child) for block in _blocks(statement) for child in block]
        hits = self._in(self.source.span(statement))
        return any(not any(start <= hit < end for start, end in inner) for hit in hits)

    def _import(self, statement: ast.Import | ast.ImportFrom, owner: ast.ClassDef | None) -> bool:
        """Cuts single names out of an import."""
        hit = [alias for alias in statement.names if self._in(self.source.span(alias))]
        covered = sum(len(self._in(self.source.span(alias))) for alias in hit)
        if len(hit) == len(statement.names) or covered < len(self._in(self.source.span(statement))):
            return False
        self._remove_items([self.source.span(alias) for alias in statement.names], [a in hit for a in statement.names])
        lost = {alias.asname or alias.name for alias in hit}
        if owner is None:
            self._lost |= lost
        return True

    def _elements(self, statement: ast.stmt) -> bool:
        """Cuts elements out of lists, sets and dictionaries; False when something else of the statement is hit."""
        displays: list[tuple[list[tuple[int, int]], list[bool]]] = []
        covered: set[int] = set()
        is_all = isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign) and "__all__" in _targets(statement)
        for node in ast.walk(statement):
            items = self._items(node, with_tuples=is_all)
            flags = [bool(self._in(item)) for item in items]
            if any(flags) and not all(flags) and not any(h in covered for item in items for h in self._in(item)):
                displays.append((items, flags))
                covered.update(hit for item in items for hit in self._in(item))
        if covered != set(self._in(self.source.span(statement))):
            return False
        for items, flags in displays:
            self._remove_items(items, flags)
        return True

    def _items(self, node: ast.AST, with_tuples: bool) -> list[tuple[int, int]]:
        if isinstance(node, ast.List | ast.Set) or (with_tuples and isinstance(node, ast.Tuple) and len(node.elts) > 2):
            return [self._with_parentheses(*self.source.span(item)) for item in node.elts]
        if isinstance(node, ast.Dict) and None not in node.keys:
            pairs = zip(node.keys, node.values, strict=True)
            return [(self.source.span(key)[0], self._with_parentheses(*self.source.span(value))[1])
                    for key, value in pairs if key]  # fmt: skip
        return []

    def _with_parentheses(self, start: int, end: int) -> tuple[int, int]:
        """An element with the parentheses around it, which are no part of its node."""
        text = self.source.text
        while True:
            opening = start - 1
            while opening >= 0 and text[opening].isspace():
                opening -= 1
            closing = _CLOSING.match(text, end)
            if opening < 0 or text[opening] != "(" or not closing:
                return start, end
            start, end = opening, closing.end()

    def _remove_items(self, items: Sequence[tuple[int, int]], flags: Sequence[bool]) -> None:
        """Removes the flagged items of a comma-separated list, commas included."""
        last = max(i for i, flag in enumerate(flags) if not flag)
        for i, flag in enumerate(flags):
            if flag and i < last:
                self.edits.append(Edit(items[i][0], items[i + 1][0]))
            elif flag:
                self.edits.append(Edit(items[i - 1][1], items[i][1]))

    # Functions: a statement goes alone only if nothing after it can miss it.

    def _function_block(self, body: Sequence[ast.stmt]) -> bool:
        """Cuts inside a block of a function; False when the function has to go."""
        gone: list[ast.stmt] = []
        for statement in body:
            if self._in(self.source.span(statement)) and not self._keep_in_function(statement):
                if not isinstance(statement, ast.Expr | ast.Assert):
                    return False
                self.edits.append(self.source.removal(statement))
                gone.append(statement)
        left = [statement for statement in body if statement not in gone]
        return any(not _is_string(s) for s in left) or (bool(left) and all(map(_is_string, body)))

    def _keep_in_function(self, statement: ast.stmt) -> bool:
        if isinstance(statement, Definition) or _blocks(statement):
            blocks = _blocks(statement)
            return not self._in_head(statement) and all([self._function_block(block) for block in blocks])
        return self._strings(statement)

    def _strings(self, statement: ast.stmt) -> bool:
        """Cuts lines out of triple-quoted strings; False when something else of the statement is hit."""
        edits: list[Edit] = []
        covered: set[int] = set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                hits = self._in(self.source.span(node))
                edit = self._string_edit(node, hits) if hits else None
                if edit:
                    edits.append(edit)
                    covered.update(hits)
        if not edits or covered != set(self._in(self.source.span(statement))):
            return False
        self.edits += edits
        return True

    def _string_edit(self, node: ast.Constant, hits: Sequence[int]) -> Edit | None:
        """The edit that takes the hit lines out of a string, None when it is not of that kind or nothing is left."""
        start, end = self.source.span(node)
        opening = _TRIPLE.match(self.source.text, start)
        if not opening or self.source.text.find(opening[1], opening.end()) != end - 3:
            return None  # a short string, or several side by side
        left, _ = cut_text(self.source.text[opening.end() : end - 3], [hit - opening.end() for hit in hits])
        return Edit(opening.end(), end - 3, left) if left.strip() else None

    def uses_of_lost_names(self) -> set[int]:
        """Offsets of the places that read what the cut statements bound."""
        found = set()
        for name in self._lost:
            if name.strip("_") and not name.startswith("__"):
                for read, functions in self.source.reads.get(name, ()):
                    if not any(name in _local_names(function) for function in functions):
                        found.add(self.source.span(read)[0])
        for owner, names in self._lost_attributes.items():
            for node in ast.walk(owner):
                match node:
                    case ast.Attribute(ast.Name("self" | "cls"), name, ast.Load()) if name in names:
                        found.add(self.source.span(node)[0])
        return found


def _blocks(statement: ast.stmt) -> list[list[ast.stmt]]:
    """The blocks of a compound statement."""
    blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
    blocks += [part.body for name in ("handlers", "cases") for part in getattr(statement, name, [])]
    return [block for block in blocks if block]


def _is_string(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _targets(statement: ast.stmt) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _bound_names(statement: ast.stmt) -> set[str]:
    """The names that a statement binds where it stands, those inside its blocks included."""
    names: set[str] = set()
    queue: list[ast.AST] = [statement]
    while queue:
        node = queue.pop()
        if isinstance(node, Definition):
            names.add(node.name)
            continue
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names if alias.asname or "." not in alias.name)
        queue.extend(ast.iter_child_nodes(node))
    return names


def _head_names(statement: ast.stmt) -> set[str]:
    """The names that the head of a loop or a `with` binds."""
    heads = [getattr(statement, "target", None), *getattr(statement, "items", [])]
    return {
        node.id
        for head in heads
        if head
        for node in ast.walk(head)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _own_attributes(statement: ast.Assign | ast.AnnAssign) -> set[str]:
    """The attributes of `self` that an assignment sets, as "self.x"."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return {
        f"self.{node.attr}"
        for target in targets
        for node in ast.walk(target)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    }


def _local_names(function: ast.AST) -> set[str]:
    """Parameters of a function, and what its body binds."""
    arguments: ast.arguments = function.args  # type: ignore[attr-defined]
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    names = {argument.arg for argument in given if argument}
    if isinstance(function, _FUNCTIONS):
        shared = {name for node in ast.walk(function) if isinstance(node, ast.Global) for name in node.names}
        names |= {name for statement in function.body for name in _bound_names(statement)} - shared
    return names
