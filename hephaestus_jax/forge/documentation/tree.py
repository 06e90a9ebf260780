"""A document tree of `docutils` as Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from docutils import nodes

_UNSEEN = (
    nodes.comment, nodes.target, nodes.substitution_definition, nodes.system_message, nodes.raw, nodes.meta,
    nodes.image, nodes.decoration, nodes.pending, nodes.transition,
)  # fmt: skip
_SPACES = re.compile(r"[ \t]*\n[ \t]*")
_PROBLEM = re.compile(r"^:[\w:+.-]+:(?=`)|^[|`*]+|[|`*]+_{0,2}$|(?<=\])_$")
_PARAMETER = re.compile(r"(?:param|parameter|arg|argument|key|keyword|var|ivar|cvar|raises?|except)\s+(.+)")
WIDEST_CELL = 300  # characters; a table with more in a cell is written as a list


def markdown_of(document: nodes.document) -> str:
    """The whole document."""
    return _join(_blocks(document.children, 0)) + "\n"


def _blocks(children: Iterable[nodes.Node], depth: int) -> list[str]:
    return [text for child in children if (text := _block(child, depth)).strip()]


def _join(blocks: Iterable[str]) -> str:
    return "\n\n".join(block.strip("\n") for block in blocks)


def _block(node: nodes.Node, depth: int) -> str:
    match node:
        case nodes.Text():
            return node.astext().strip()
        case nodes.section():
            blocks = _blocks(node.children, depth + 1)
            return _join(blocks) if len(blocks) > 1 else ""  # a heading with nothing below it
        case nodes.title():
            return f"{'#' * max(1, min(depth, 6))} {_inline(node)}"
        case nodes.bullet_list():
            return _list([(_item(child.children, depth), "-") for child in node.children])
        case nodes.enumerated_list():
            start = int(node.get("start", 1))
            return _list([(_item(child.children, depth), f"{n}.") for n, child in enumerate(node.children, start)])
        case nodes.definition_list():
            return _list([(_definition(child, depth), "-") for child in node.children])
        case nodes.field_list():
            return _list([(said, "-") for child in node.children if (said := _field(child, depth))])
        case nodes.option_list():
            return _list([(_option(child, depth), "-") for child in node.children])
        case nodes.literal_block() | nodes.doctest_block():
            return _fenced(node)
        case nodes.math_block():
            return f"$$\n{textwrap.dedent(node.astext()).strip()}\n$$"
        case nodes.line_block():
            return "\n".join(_inline(line) for line in node.findall(nodes.line))
        case nodes.table():
            return _table(node, depth)
        case nodes.admonition():
            return _labelled(node.get("remark", "Note:"), node.children, depth)
        case nodes.footnote() | nodes.citation():
            return _labelled(f"[{node.children[0].astext()}]", node.children[1:], depth)
        case nodes.rubric():
            return _bold(_inline(node))
        case nodes.attribution():
            return f"— {_inline(node)}"
        case nodes.TextElement():
            return "" if isinstance(node, _UNSEEN) else _inline(node)
        case nodes.Element():
            return "" if isinstance(node, _UNSEEN) else _join(_blocks(node.children, depth))
    return ""


def _labelled(label: str, children: Iterable[nodes.Node], depth: int) -> str:
    said = _blocks(children, depth)
    first = said[:1] and not re.match(r"[-#`|$]|\d+\.", said[0][:3])
    return _join([f"{label} {said[0]}", *said[1:]] if first else [label, *said])


def _bold(text: str) -> str:
    return text if "**" in text or not text else f"**{text}**"


def _list(items: list[tuple[str, str]]) -> str:
    made = []
    for text, mark in items:
        if text.strip():
            indent = " " * (len(mark) + 1)
            made.append(f"{mark} {textwrap.indent(text, indent, lambda line: line.strip() != '').strip()}")
    return ("\n\n" if any("\n\n" in item for item in made) else "\n").join(made)


def _item(children: Iterable[nodes.Node], depth: int) -> str:
    blocks = _blocks(children, depth)
    # a list below one line of its item needs no blank line between
    if len(blocks) == 2 and "\n" not in blocks[0] and re.match(r"- |\d+\. ", blocks[1]) and "\n\n" not in blocks[1]:
        return "\n".join(blocks)
    return _join(blocks)


def _definition(node: nodes.Node, depth: int) -> str:
    terms = [_inline(child) for child in node.children if isinstance(child, nodes.term)]
    classifiers = [_inline(child) for child in node.children if isinstance(child, nodes.classifier)]
    said = [child for child in node.children if isinstance(child, nodes.definition)]
    label = ", ".join(terms) + (f" ({', '.join(classifiers)})" if classifiers else "")
    label = label if "`" in label or "*" in label else f"**{label}**"
    return _labelled(f"{label}:", [child for part in said for child in part.children], depth)


def _field(node: nodes.Node, depth: int) -> str:
    if len(node.children) != 2 or not node.children[1].children:
        return ""
    name = node.children[0].astext()
    if name.lower().startswith(("type ", "vartype ", "rtype")) or name.lower() in (
        "orphan",
        "tocdepth",
        "meta",
        "title",
    ):
        return ""
    name = "Returns" if name.lower().startswith("return") else name
    parameter = _PARAMETER.fullmatch(name)
    label = f"`{parameter[1].split()[-1]}`" if parameter else f"**{name.capitalize() if name.islower() else name}**"
    return _labelled(f"{label}:", node.children[1].children, depth)


def _option(node: nodes.Node, depth: int) -> str:
    options = ", ".join(f"`{option.astext()}`" for option in node.findall(nodes.option))
    return _labelled(f"{options}:", node.children[-1].children, depth)


def _fenced(node: nodes.Element) -> str:
    text = node.astext().strip("\n")
    if not text.strip():
        return ""
    language = node.get("language") or ("python" if isinstance(node, nodes.doctest_block) else "")
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`{3,}", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _table(table: nodes.Element, depth: int) -> str:
    title = [_bold(_inline(child)) for child in table.children if isinstance(child, nodes.title)]
    heads = [row for head in table.findall(nodes.thead) for row in head.findall(nodes.row)]
    rows = [row for body in table.findall(nodes.tbody) for row in body.findall(nodes.row)]
    cells = [[_join(_blocks(entry.children, depth)) for entry in row.children] for row in [*heads, *rows]]
    if not cells:
        return ""
    width = max(map(len, cells))
    flat = all("\n" not in cell and len(cell) <= WIDEST_CELL for row in cells for cell in row)
    if not flat or width < 2:
        names = cells[0] if heads else []
        items = [(_row(row, names), "-") for row in cells[1 if heads else 0 :]]
        return _join([*title, _list(items)])
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]
    lines.insert(1 if heads else 0, f"|{'---|' * width}")
    if not heads:
        lines.insert(0, f"|{'  |' * width}")
    return _join([*title, "\n".join(lines)])


def _row(cells: list[str], names: list[str]) -> str:
    """A row of a table as the item of a list: the first cell, then what stands below the other headings."""
    said = [cells[0]] if cells else []
    for number, cell in enumerate(cells[1:], 1):
        name = names[number] if number < len(names) else ""
        if cell.strip():
            said.append(f"{name}: {cell}" if name and "\n" not in cell else cell)
    flat = all("\n" not in part for part in said)
    return ("; " if flat and len(said) == 2 and not names else "\n" if flat else "\n\n").join(said)


def _inline(node: nodes.Node) -> str:
    """The words of a paragraph, on one line."""
    return "".join(_word(child) for child in node.children).strip()


def _word(node: nodes.Node) -> str:
    match node:
        case nodes.Text():
            return _SPACES.sub(" ", node.astext())
        case nodes.literal() | nodes.title_reference():
            text = _SPACES.sub(" ", node.astext())
            if isinstance(node, nodes.title_reference):  # what systems make a link of: `~package.module.Name`
                text = re.sub(r"^(?:~(?:\w+\.)*|!)(?=\w)", "", text)
            return f"`` {text} ``" if "`" in text else f"`{text}`" if text else ""
        case nodes.emphasis():
            return f"*{inner}*" if (inner := _inline(node)) else ""
        case nodes.strong():
            return f"**{inner}**" if (inner := _inline(node)) else ""
        case nodes.math():
            return f"${_SPACES.sub(' ', node.astext())}$"
        case nodes.footnote_reference() | nodes.citation_reference():
            return f"[{node.astext()}]"
        case nodes.problematic():
            text = _SPACES.sub(" ", node.astext())
            return _PROBLEM.sub("", re.sub(r"\s*<[^<>]*>(?=`)", "", text))
        case nodes.Element() if not isinstance(node, _UNSEEN):
            return "".join(_word(child) for child in node.children)
    return ""
