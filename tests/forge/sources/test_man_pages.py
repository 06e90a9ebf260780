"""Manual pages: man(7), DocBook's and help2man's habits, mdoc(7), C functions, and pages made to harm."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from source_reading import read

MAN = r""".\" comment
.de Vb
.nf
..
.ie n .ds Aq \(aq
.el .ds Aq X
.TH FOO 1 "May 2020" "GNU foo 9.1" "User Commands"
.SH NAME
foo, bar \- do it
.SH SYNOPSIS
.B foo
[\fI\,OPTION\/\fR]... \fIFILE\fR
.SH DESCRIPTION
.PP
Doesn\*(Aqt
.BR wait ,
ever.  See
.UR http://x
.UE .
.if t Not on a terminal.
.if n \{\
On one.
.\}
.TP
\fB\-a\fR, \fB\-\-all\fR
all of it:
.RS
.IP \(bu 2
one
.IP \(bu 2
two
.RE
.TP
.BR \-\-color [=\fIWHEN\fR]
when
.TP
.BI \-o " file"
.TQ
.BI \-\-output= file
where
.IP "\-\-old" 4
older
.SH EXIT STATUS
.TP
0
fine
.TP
2
trouble
.SH EXAMPLES
Do it now:
.PP
.nf
$ foo \-a x
done
.fi
.SH AUTHOR
Nobody
"""
DOCBOOK = r""".TH "GIT\-LOG" "1" "" "Git 2\&.39\&.5" "Git Manual"
.SH "NAME"
git-log \- Show logs
.SH "SYNOPSIS"
.sp
.nf
\fIgit log\fR [<options>]
.fi
.SH "OPTIONS"
.PP
\-\-follow
.RS 4
Go on\&.
.RE
.PP
\-\-[no\-]mailmap, \-n <number>
.RS 4
.sp
Map\&.
.sp
.if n \{\
.RS 4
.\}
.nf
code
.fi
.if n \{\
.RE
.\}
.RE
"""
MDOC = r""".Dd May 1, 2020
.Dt FOO 1
.Os
.Sh NAME
.Nm foo
.Nd do it
.Sh SYNOPSIS
.Nm
.Op Fl a
.Op Fl o Ar file
.Ar name ...
.Sh DESCRIPTION
The
.Nm
utility does it
.Pq see Xr bar 1 .
.Bl -tag -width Ds
.It Fl a
All of it.
.It Fl o Ar file
Where.
.El
"""
FUNCTION = r""".TH OPEN 2 "" "Linux man-pages 6.03"
.SH NAME
open, creat \- open a file
.SH SYNOPSIS
.nf
.B #include <fcntl.h>
.PP
.BI "int open(const char *" pathname ", int " flags ", void (*" f ")(int, int));"
.fi
.SH DESCRIPTION
Opens it.
.SH RETURN VALUE
A descriptor.
.SH ERRORS
.TP
.BR EACCES
No.
"""


def pages(folder: Path, **texts: Any) -> tuple[list[Any], dict[str, int]]:
    for name, text in texts.items():
        name = name.replace("_", ".")
        place = folder / f"man{name[-1]}"
        place.mkdir(exist_ok=True)
        raw = text if isinstance(text, bytes) else text.encode()
        (place / f"{name}.gz").write_bytes(gzip.compress(raw))
    records, quarantine = read("man_pages", folder)
    return records, quarantine.counts


def test_a_command(tmp_path: Path) -> None:
    (doc,), counts = pages(tmp_path, foo_1=MAN)
    assert (doc.name, doc.provider, doc.interface, counts) == ("foo", "GNU foo", "cli", {})
    assert doc.signature == "foo [OPTION]... FILE"
    assert doc.description == "Do it.\n\nAlso: bar.\n\nDoesn't wait, ever. See <http://x>. On one."
    fields = doc.parameters["properties"]
    assert list(fields) == ["all", "color", "output", "old"]
    assert fields["all"] == {"type": "boolean", "description": "`-a, --all`: all of it:\n\n- one\n- two"}
    assert fields["color"] == {"type": ["boolean", "string"], "description": "`--color[=WHEN]`: when"}
    assert fields["output"] == {"type": "string", "description": "`-o file, --output=file`: where"}
    assert [(e.name, e.description) for e in doc.errors] == [("0", "fine"), ("2", "trouble")]
    (example,) = doc.examples
    assert (example.call, example.result, example.intent) == ("foo -a x", "done", "Do it now")


def test_docbook(tmp_path: Path) -> None:
    (doc,), _ = pages(tmp_path, **{"git-log_1": DOCBOOK})
    assert doc.name == "git log" and doc.provider == "Git" and doc.signature == "git log [<options>]"
    assert doc.parameters["properties"]["follow"] == {"type": "boolean", "description": "`--follow`: Go on."}
    assert doc.parameters["properties"]["mailmap"]["description"].endswith("Map.\n\n```\ncode\n```")


def test_mdoc(tmp_path: Path) -> None:
    (doc,), _ = pages(tmp_path, foo_8=MDOC)
    assert doc.signature == "foo [-a] [-o file] name ..." and doc.interface == "cli"
    assert doc.description == "Do it.\n\nThe foo utility does it (see bar(1))."
    assert doc.parameters["properties"]["o"] == {"type": "string", "description": "`-o file`: Where."}


def test_a_function(tmp_path: Path) -> None:
    (doc,), _ = pages(tmp_path, open_2=FUNCTION)
    assert doc.name == "open(2)" and doc.interface == "module" and doc.function == "open"
    assert doc.parameters["required"] == ["pathname", "flags", "f"]
    assert doc.parameters["properties"]["pathname"]["type"] == "string"
    assert doc.returns == {"type": "integer", "title": "int", "description": "A descriptor."}
    assert [(e.name, e.description) for e in doc.errors] == [("EACCES", "No.")]


def test_translations_other_sections_and_redirections(tmp_path: Path) -> None:
    (tmp_path / "de/man1").mkdir(parents=True)
    (tmp_path / "de/man1/foo.1").write_text(MAN)
    records, counts = pages(tmp_path, foo_1=MAN, foo_5=MAN, alias_1=".so man1/foo.1\n", empty_1="", none_1=".SH X\n")
    assert [doc.name for doc in records] == ["foo"]
    assert counts == {"another name of a page": 1, "empty file": 1, "no NAME section": 1}


HEAD = ".SH NAME\nfoo \\- x\n.SH DESCRIPTION\n"


@pytest.mark.parametrize(
    "text",
    [
        "".join(f".ds a{i + 1} \\*(a{i}\\*(a{i}\n" for i in range(9)) + HEAD + "\\*(a9\n",
        ".de M\n.M\n.M\n..\n" + HEAD + ".M\n" * 1000,
        HEAD + "".join(f".de N{i}\n.N{i + 1}\n.N{i + 1}\n..\n" for i in range(2000)) + ".N0\n",
        HEAD + ".RS\n.IP x\ny\n" * 20_000,
        HEAD + ".if n \\{\\\n" * 20_000,
        HEAD + ".while 1 \\{\\\nx\n.\\}\n",
        HEAD + "\\" * 100_000 + "\n" + "a \\\n" * 50_000,
        HEAD + "\\h'" * 20_000 + "\n.B " + '"' * 20_000 + "\n",
        HEAD + ".TP\n-" + "-a, " * 20_000 + "\nx\n",
        ".Dd x\n.Sh NAME\n.Nm foo\n.Nd x\n.Sh DESCRIPTION\n" + ".Bl -tag\n.It Fl a\n" * 5000 + ".Op " * 9000 + "\n",
    ],
    ids=[
        "strings",
        "own macro",
        "nested macros",
        "indents",
        "conditions",
        "while",
        "escapes",
        "delimiters",
        "tag",
        "mdoc",
    ],
)
def test_pages_made_to_harm_cost_no_more_than_their_length(tmp_path: Path, text: str) -> None:
    (doc,), _ = pages(tmp_path, foo_1=text)
    assert doc.name == "foo" and len(doc.description) <= 6100


def test_gzip_bombs_and_other_bytes(tmp_path: Path) -> None:
    (tmp_path / "man1").mkdir()
    (tmp_path / "man1/bomb.1.gz").write_bytes(gzip.compress(b"\0" * (20 << 20)))
    (tmp_path / "man1/bad.1.gz").write_bytes(b"\x1f\x8b nothing")
    (tmp_path / "man1/latin.1").write_bytes(".SH NAME\nlatin \\- caf\xe9\n".encode("latin-1"))
    records, quarantine = read("man_pages", tmp_path)
    assert [doc.description for doc in records] == ["Café."]
    assert quarantine.counts == {"damaged gzip": 1, "file too large": 1}


GCLOUD = r""".TH "X" 1
.SH "NAME"
.HP
x pets create \- create a pet
.SH "SYNOPSIS"
.HP
\f5x pets create\fR \-\-name=NAME
.SH "DESCRIPTION"
(BETA) Create a pet.
.SH "EXAMPLES"
To create one, run:
.RS 2m
$ x pets create \e
    \-\-name=Tom
.RE
.SH "REQUIRED FLAGS"
.RS 2m
.TP 2m
\fB\-\-name\fR=\fINAME\fR
Its name.
.RE
.SH "OPTIONAL FLAGS"
.RS 2m
.TP 2m
\fB\-\-order\fR=\fIORDER\fR; default="desc"
Its order.
.RE
"""


def test_required_flags_defaults_and_commands_in_running_text(tmp_path: Path) -> None:
    (doc,), _ = pages(tmp_path, **{"x-pets-create_1": GCLOUD})
    assert doc.description == "(BETA) Create a pet."
    assert doc.parameters["required"] == ["name"]
    assert doc.parameters["properties"]["order"]["default"] == "desc"
    assert "default" not in doc.parameters["properties"]["order"]["description"]
    (example,) = doc.examples
    assert (example.call, example.intent) == ("x pets create \\\n    --name=Tom", "To create one, run")


def test_prototypes_in_mdoc(tmp_path: Path) -> None:
    head = ".Dd May 1, 2020\n.Dt FOO 3\n.Os\n.Sh NAME\n.Nm foo\n.Nd do it\n.Sh SYNOPSIS\n.In foo.h\n.Ft int\n"
    for lines in ('.Fn foo "char *a" "int b"\n', '.Fo foo\n.Fa "char *a"\n.Fa "int b"\n.Fc\n'):
        (doc,), _ = pages(tmp_path, foo_3=head + lines + ".Sh DESCRIPTION\nIt does it.\n")
        assert doc.signature == "int foo(char *a, int b)" and doc.parameters["required"] == ["a", "b"]
