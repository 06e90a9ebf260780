"""Why one makes a call in a shell, in SQL or in Python: sentences by what the call does.

A rule is a pattern and what one may think where it is found; groups of the pattern stand in the sentences. They say
what is in the call, which is made of what was read, and nothing that only its result can tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Rules = tuple[tuple[str, tuple[str, ...]], ...]

_PATH = r"(?P<path>[\w./-]+)"
SHELL_FIRST: Rules = (
    (
        r"^(ls( -R| -1)?|find \. -type f \| sort)$",
        (
            "I do not know yet which files there are, so I look.",
            "First of all: what is in the working directory?",
            "Before I touch anything I list the files.",
        ),
    ),
    (
        rf"^ls -l {_PATH}$",
        ("The modes of the files matter here, so I list {path} in full.", "How are the modes in {path} now? I look."),
    ),
    (
        rf"^(ls|ls -1|find) {_PATH}( -type f \| sort)?$",
        (
            "I want to see what {path} holds.",
            "Which files are in {path}? That comes first.",
            "Let me list {path} before I do anything.",
        ),
    ),
    (
        rf"^find {_PATH} -name",
        ("find can tell me where below {path} it is.", "I search {path} for the file by its name."),
    ),
    (
        rf"^find {_PATH} .*\| sort$",
        ("Before I delete anything I list exactly what would go.", "I try the search without deleting first."),
    ),
    (
        rf"^head -n \d+ {_PATH}$",
        (
            "A few lines of {path} will show how it is built.",
            "I look at the beginning of {path} to learn its format.",
            "How are the lines of {path} made up? The first ones will tell.",
        ),
    ),
    (
        r"^tail .*cut .*sort -u$",
        ("Which values are there? I list each of them once.", "I need the different values of that column."),
    ),
    (
        r"^grep -rl",
        ("grep can name the file that has these words in it.", "A recursive search for the words will find the file."),
    ),
    (
        r"^grep -r ",
        ("Where does it occur? I search all the files.", "I find the files that are concerned before I change any."),
    ),
    (r"^grep -c", ("Counting the lines that match answers this.", "grep -c counts such lines without showing them.")),
    (r"^grep '", ("One key is all I need, so I search for its line.", "The line with the key has the value.")),
    (
        r"^awk -F,.*total",
        (
            "The columns are separated by commas; awk can pick the rows and add up the amounts.",
            "I let awk add up the amounts of the rows that match.",
        ),
    ),
    (
        r"uniq -c",
        (
            "Sorting, counting with uniq -c and sorting by the count puts the most frequent one on top.",
            "I cut out that column, count each value and look at the largest counts.",
        ),
    ),
    (
        r"^wc -l",
        ("wc -l counts the lines; sorted, the answer is at the top.", "I count the lines of all of them and sort."),
    ),
    (r"^tar -tzf", ("I look into the archive before I unpack it.", "What is in the archive? I list it first.")),
    (r"^tar -xzf", ("Now I unpack it to get at the file.", "The file is inside, so I extract the archive.")),
    (
        r"^for folder in",
        (
            "A loop over the folders can count the files in each.",
            "I count the files of every folder and sort by the number.",
        ),
    ),
    (r"^cksum", ("Equal checksums mean equal content.", "Checksums, sorted, bring identical files together.")),
    (rf"^bash {_PATH}$", ("I run {path} to see what it says.", "What does {path} report? I run it.")),
)
SHELL_CHANGES: Rules = (
    (
        r"^for f in .*mv",
        ("A loop renames them one after the other.", "All of them need a new ending; a loop over the files does that."),
    ),
    (
        r"^for r in",
        ("For every value I filter the rows into a file of its own.", "One pass of grep per value makes the files."),
    ),
    (rf"^mkdir (-p )?{_PATH}", ("The folder has to be there first.", "I make what folders are needed.")),
    (
        rf"^mv .* {_PATH}/?$",
        ("These go to {path} now.", "I move them to {path}.", "That belongs in {path}, so I move it."),
    ),
    (rf"^cp .* {_PATH}/?$", ("A copy goes to {path}, and the original stays.", "I copy it to {path}.")),
    (
        r"^tar -czf",
        ("I pack the whole folder into a compressed archive.", "tar with gzip makes the archive that was asked for."),
    ),
    (r"^chmod", ("I set the mode of just these files.", "chmod gives them the mode that was asked for.")),
    (
        r"-delete$|^rm ",
        (
            "Only these go, and nothing else.",
            "I know exactly what has to be removed.",
            "I remove what should not be there.",
        ),
    ),
    (
        rf"^sed -i .* {_PATH}$",
        ("I replace it in the file itself.", "sed can change just this and leave the rest of {path} alone."),
    ),
    (
        rf"> {_PATH}$",
        (
            "This writes what was asked for into {path}.",
            "The result goes to {path}.",
            "I put it together and write it to {path}.",
        ),
    ),
    (rf"^touch {_PATH}$", ("A new empty {path} takes its place.", "Now an empty {path} is needed.")),
    (rf"^bash {_PATH}$", ("With that changed, I run {path} again.", "I run {path} and see whether it works.")),
)
CHECKS = (
    "I check that it came out as it should.",
    "Did that do what I wanted? I look at the result.",
    "Better to look than to assume: is it right now?",
    "Before I hand it in I look at what is there now.",
)
SQL_FIRST: Rules = (
    (
        r"^SELECT DISTINCT .*FROM (?P<table>\w+)",
        (
            "Which values occur in {table}? I want to see how they are written.",
            "I look at the values before I filter by one.",
        ),
    ),
    (
        r"^SELECT \w+ FROM (?P<table>\w+) LIMIT",
        ("How are the values in {table} written? A few rows will show.", "I look at some rows to know the format."),
    ),
    (
        r"OVER \(",
        (
            "A window function does this without losing the rows.",
            "This asks for a rank or a running total, so I use a window function.",
        ),
    ),
    (
        r"LEFT JOIN .*IS NULL",
        (
            "A left join keeps those without a partner; they are the ones I want.",
            "Those without a match have NULL on the right side of a left join.",
        ),
    ),
    (
        r"HAVING COUNT\(\*\) > 1",
        ("Values that occur more than once are the duplicates.", "Grouping by the value shows what was entered twice."),
    ),
    (
        r"JOIN (?P<table>\w+).*GROUP BY",
        (
            "I join the tables and group the rows.",
            "The names are in another table than the rows to be counted, so I join and group.",
        ),
    ),
    (
        r"JOIN (?P<table>\w+)",
        ("What I need is in two tables, so I join them.", "The condition is on {table}, so I join it in."),
    ),
    (
        r"GROUP BY",
        ("Grouping gives one number for each; sorted, the answer is on top.", "I count per group and compare."),
    ),
    (
        r"NOT IN \(SELECT",
        (
            "Which rows point to nothing? I list them before I delete any.",
            "I look at the rows without a partner first.",
        ),
    ),
    (
        r"^SELECT \w+(, \w+)? FROM (?P<table>\w+) WHERE \w+ (=|IN)",
        ("I need the key from {table} before I can go on.", "I look up the key in {table}."),
    ),
    (
        r"^SELECT COUNT\(\*\) FROM (?P<table>\w+) WHERE",
        ("Counting the rows of {table} that fit answers this.", "I count what fits both conditions."),
    ),
    (
        r"^SELECT .*FROM (?P<table>\w+) WHERE",
        (
            "I look at the rows of {table} that this is about.",
            "Which rows of {table} are concerned? I look before I change any.",
        ),
    ),
    (r"^SELECT .*FROM (?P<table>\w+)", ("I look into {table}.", "The rows of {table} will tell me what I need.")),
)
SQL_CHANGES: Rules = (
    (r"^BEGIN", ("Both changes must happen together, so I begin a transaction.", "I start the transaction.")),
    (r"^COMMIT", ("Both changes are in and look right, so I make them last.", "The numbers are right; I commit.")),
    (r"^ROLLBACK", ("I take all of this transaction back.", "This went wrong, so I roll it back.")),
    (
        r"^UPDATE (?P<table>\w+)",
        ("I change just these rows of {table}.", "This sets the right value in {table} and touches no other row."),
    ),
    (
        r"^INSERT INTO (?P<table>\w+)",
        ("I have all the values, so I add the row to {table}.", "The row for {table} can be entered now."),
    ),
    (
        r"^DELETE FROM (?P<table>\w+)",
        ("These rows of {table} can go.", "I delete just the rows that the task names from {table}."),
    ),
    (r"^CREATE VIEW", ("The query gives the right rows, so I make it a view.", "Now I store the query as a view.")),
    (r"^CREATE .*INDEX", ("I create the index as asked.", "The columns exist, so the index can be made.")),
    (
        r"^ALTER TABLE (?P<table>\w+)",
        ("First {table} needs the column.", "I add the column to {table}, empty at first."),
    ),
    (
        r"^DROP \w+ (?P<table>\w+)",
        ("That is not what it should be, so I drop {table}.", "I remove {table} and make it anew."),
    ),
)
PYTHON: Rules = (
    (
        r"runpy|^from (?!datetime|collections|itertools)\w+ import",
        ("I run it to see what happens.", "Let me see what it does when it runs."),
    ),
    (
        r"\.replace\(.*\n.*open\(.*\"w\"",
        ("That part is the fault; I replace it in the file.", "I correct the line and write the file again."),
    ),
    (r"^class ", ("I write the class as it was described.", "The description is clear enough to write the class.")),
    (
        r"^(from .*\n\n?)?def ",
        ("I write a function for it and try it afterwards.", "This is best put into a function."),
    ),
    (
        r"read\(\)\[:\d+\]",
        (
            "The beginning of the file will show its format.",
            "I look at the first characters to see how the file is built.",
        ),
    ),
    (
        r"json\.load|csv\.\w*[rR]eader",
        ("I load the data so that I can compute with it.", "First I read the file into Python."),
    ),
    (
        r"re\.findall",
        (
            "A regular expression picks the numbers out of the lines.",
            "The lines have a fixed form, so a regular expression finds what I need.",
        ),
    ),
    (r"Counter", ("A Counter tells how often each one comes up.", "I count them and look at the largest numbers.")),
    (r"json\.dump", ("Now I compute the values and write the file.", "I write the result as JSON.")),
    (
        r"(?s)\bfor .*:\n|\bwhile ",
        ("I go through it step by step, as the rule says.", "A loop does exactly what was described."),
    ),
    (r"open\(", ("I read the file.", "I load what the file holds.")),
    (r"date", ("The standard library can reckon with dates.", "I let datetime do the counting.")),
    (
        r"(?m)^(sum|max|min|round|len|sorted)\(",
        ("The data are there; one line computes the answer.", "Now the answer is a single expression."),
    ),
    (r"^[A-Za-z_]\w*\(", ("I try it with a few values.", "Does it do what it should? I call it.")),
)


def reasons_by(rules: Rules, text: str) -> Sequence[str]:
    """The sentences of the first rule that fits, with the groups of its pattern filled in; () if none does."""
    for pattern, sentences in rules:
        found = re.search(pattern, text)
        if found:
            filled = [sentence.format_map(found.groupdict("")) for sentence in sentences]
            return [sentence for sentence in filled if "{" not in sentence]
    return ()
