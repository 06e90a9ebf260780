"""The proof on the real training command, shorter than the one that is published."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")  # the tool builds caches, which training does not
pytest.importorskip("tokenizers")

ROOT = Path(__file__).parents[2]


def prove(out, *arguments):
    """What the command printed as JSON."""
    command = [sys.executable, "-m", "tools.prove_checkpoints", "--out", str(out), *arguments]
    # compiled as in use, unlike other tests' programs: equal bits are the point
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_killed_and_resumed_it_ends_as_if_nothing_had_happened(tmp_path):
    found = prove(tmp_path, "--kills", "2", "--in_open_save", "1", "--steps", "40")
    assert found["kills"] >= 2 and found["in_open_save"] >= 1
    assert found["resumes"] == found["resumes_naming_their_step"] >= 2
    assert found["losses_compared"] == found["losses_equal"] == 40
    assert found["held_out_losses_compared"] == found["held_out_losses_equal"] == 3
    assert found["final_state_equal"] and not found["wrong"] and not found["damaged_checkpoints"]


def test_a_difference_would_be_told(tmp_path):
    from tools.prove_checkpoints.__main__ import Outcome, compare

    for name, loss in (("one", 2.5), ("other", 2.5000001)):
        (tmp_path / name / "checkpoints" / "4" / "digests").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "4" / "digests" / "metadata").write_text(name)
        lines = [{"kind": "train", "step": step, "loss": loss if step == 2 else 1.0, "mfu": loss} for step in (1, 2)]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = Outcome(processes=1)
    compare(tmp_path / "one", tmp_path / "other", outcome)
    assert (outcome.losses_compared, outcome.losses_equal, outcome.final_state_equal) == (2, 1, False)
    assert outcome.wrong == ["train metrics differ at steps [2]", "the states after step 4 differ"]
    same = Outcome(processes=1)
    compare(tmp_path / "one", tmp_path / "one", same)
    assert (same.losses_equal, same.final_state_equal, same.wrong) == (2, True, [])
