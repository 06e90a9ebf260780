"""What no reader may stumble over: every reader of rows meets every hostile row, alone and before a good one."""

from __future__ import annotations

from pathlib import Path

import pytest
from source_reading import HOSTILE, read

LINES = ("api_bank", "sharegpt", "openai_messages", "xlam", "glaive", "codeact", "openassistant", "mcp_tools")
WHOLE = ("toolbench", "toolalpaca", "schema_guided_dialogue", *LINES[1:])


@pytest.mark.parametrize(
    ("name", "file"), [*((name, "rows.jsonl") for name in LINES), *((name, "rows.json") for name in WHOLE)]
)
def test_hostile_rows_are_set_aside_and_nothing_is_raised(name: str, file: str, tmp_path: Path) -> None:
    for index, (what, made) in enumerate(HOSTILE.items()):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / file).write_text(made(), encoding="utf-8")
        records, quarantine = read(name, folder)
        assert records == [], what
        assert quarantine.total or (what == "empty" and file == "rows.jsonl"), what
