"""The notebook: clean as it is kept, and executed on CPU where the small quickstart has been run."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from quickstart_run import SMALLER, Quickstart

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

TOOLS = Path(__file__).parents[2] / "tools"
NOTEBOOK = nbformat.read(TOOLS / "quickstart.ipynb", as_version=4)


def parameters(notebook: Any) -> Any:
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    return cell


def text(cell: Any) -> str:
    """All that a cell printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_it_is_kept_clean() -> None:
    nbformat.validate(NOTEBOOK)
    for cell in NOTEBOOK.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            compile(cell.source, cell.id, "exec")
    assert set(NOTEBOOK.metadata) == {"kernelspec", "language_info"}


@pytest.mark.slow
def test_it_runs(quickstart: Quickstart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = copy.deepcopy(NOTEBOOK)
    cell, given = parameters(notebook), {}
    exec(cell.source, given)
    changed = {"FOLDER": str(quickstart.folder), "SETTINGS": list(SMALLER)}
    assert changed.keys() < given.keys()
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in changed.items())
    environment = {
        "PYTHONPATH": TOOLS.parent, "JAX_PLATFORMS": "cpu",
        "IPYTHONDIR": tmp_path, "JUPYTER_RUNTIME_DIR": tmp_path,
        "PIP_NO_INDEX": 1, "HF_HUB_OFFLINE": 1,
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    # Jupyter starts in the notebook's folder, whose inspect.py a process started there would take for Python's own
    place = {"metadata": {"path": str(TOOLS)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=place).execute()

    cells = {cell.id: cell for cell in notebook.cells}
    assert text(cells["installing"]).startswith("hephaestus_jax is installed already; devices: [CpuDevice")
    output = text(cells["quickstart"])
    assert output.count("· done before, in ") == 11  # the report is always made
    assert "held-out loss per slice" in output and "done: 12 steps in work/quickstart" in output
    (shown,) = cells["showing"].outputs
    assert shown.data["text/html"].startswith("<div><iframe srcdoc=") and "Quickstart" in shown.data["text/html"]
    assert "agent: held-out loss in nats per token, step 0 → step 4\n  agent_docs " in text(cells["reading"])
    loads = find_spec("torch") and find_spec("transformers")
    assert ("parameters\n<|begin_of_text|>" if loads else "to load it here, install") in text(cells["generating"])
