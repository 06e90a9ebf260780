"""Starting the processes of a run: what is started on each platform, and a runner that ends them together."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hephaestus_jax.errors import UserError
from tools.launch import platforms
from tools.launch.runner import Command, Group, run_together

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ["python", "-m", "train", "--gin_file=run.gin", "--gin.MIXTURE=/a b"]


def python(name, text, **environment):
    return Command(name, [sys.executable, "-c", text], {**os.environ, **environment})


def launch(*arguments):
    """The command line, with --dry_run; exit status, output, errors."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.launch", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


# ---- what is started


def test_local_processes_find_each_other():
    show = "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))"
    commands = platforms.local(["python", "-c", show, "a b"], processes=3, devices=2)
    told = [json.loads(subprocess.check_output(one.arguments, env=one.environment)) for one in commands]
    assert [environment["HEPHAESTUS_PROCESS_ID"] for environment, _ in told] == ["0", "1", "2"]
    assert {environment["HEPHAESTUS_PROCESSES"] for environment, _ in told} == {"3"}
    assert len({environment["HEPHAESTUS_COORDINATOR"] for environment, _ in told}) == 1
    assert all("--xla_force_host_platform_device_count=2" in environment["XLA_FLAGS"] for environment, _ in told)
    assert all(arguments == ["a b"] for _, arguments in told)
    [alone] = platforms.local(["true"], processes=1)
    assert "HEPHAESTUS_PROCESS_ID" not in alone.environment and alone.environment["HEPHAESTUS_PROCESSES"] == "1"
    with pytest.raises(UserError, match="0 processes"):
        platforms.local(["true"], processes=0)


def test_ssh_tells_each_host_its_number(tmp_path):
    """The remote line, run by a shell as sshd would."""
    commands = platforms.ssh(
        ["sh", "-c", "pwd; echo $HEPHAESTUS_COORDINATOR $HEPHAESTUS_PROCESSES $HEPHAESTUS_PROCESS_ID; echo \"$X\""],
        ["me@host0", "host1"], 8476, str(tmp_path), {"X": "a 'b'"},
    )  # fmt: skip
    assert [list(one.arguments[:3]) for one in commands] == [["ssh", "-tt", "me@host0"], ["ssh", "-tt", "host1"]]
    for number, one in enumerate(commands):
        said = subprocess.check_output(["sh", "-c", one.arguments[3]], text=True)
        assert said.splitlines() == [str(tmp_path), f"host0:8476 2 {number}", "a 'b'"]
    with pytest.raises(UserError, match="name every host once"):
        platforms.ssh(["true"], ["a", "a"], 8476, "", {})


def test_tpu_hosts_are_told_by_the_platform():
    [one] = platforms.tpu(TRAIN, "node", "us-central2-b", "p", 1, "~/my code", {"A": "1 2"})
    assert one.arguments == [
        "gcloud", "compute", "tpus", "tpu-vm", "ssh", "node", "--worker=all", "--zone=us-central2-b", "--project=p",
        "--command=cd ~/'my code' && exec env A='1 2' python -m train --gin_file=run.gin '--gin.MIXTURE=/a b'",
    ]  # fmt: skip
    assert "HEPHAESTUS" not in one.arguments[-1]
    [slices] = platforms.tpu(TRAIN, "queued", "z", "", 2, "", {})
    assert slices.arguments[3:8] == ["queued-resources", "ssh", "queued", "--node=all", "--worker=all"]


def test_the_script_for_slurm_is_one(tmp_path):
    """Run by bash, with an `srun` that says how it was called."""
    (tmp_path / "srun").write_text('#!/bin/bash\necho "$X" "$PWD"; printf "<%s>" "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    script = platforms.slurm(TRAIN, "job", 4, 8, ["--gpus-per-node=8"], str(tmp_path), {"X": "a b"})
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.check_output(["bash"], input=script, text=True, env={**os.environ, **path})
    assert said == (
        f"a b {tmp_path}\n<--kill-on-bad-exit=1><python><-m><train><--gin_file=run.gin><--gin.MIXTURE=/a b>"
    )
    options = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]
    assert {"--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8", "--requeue", "--signal=TERM@120"} <= set(options)


def test_the_command_line_prints_and_runs():
    status, printed, _ = launch("local", "--processes=2", "--dry_run", "--", *TRAIN)
    assert status == 0
    assert [line.split(" HEPHAESTUS_PROCESS_ID=")[1][0] for line in printed.splitlines()] == ["0", "1"]
    assert printed.splitlines()[0].endswith("-m train --gin_file=run.gin '--gin.MIXTURE=/a b'")
    show = "import os; print('I am', os.environ['HEPHAESTUS_PROCESS_ID'])"
    status, printed, errors = launch("local", "--processes=2", "--", "python", "-c", show)
    assert (status, sorted(printed.splitlines())) == (0, ["[0] I am 0", "[1] I am 1"]), errors
    status, _, errors = launch("local", "--processes=2")
    assert status == 2 and errors.startswith("error: no command to start; write it after --")


# ---- the runner


def test_when_one_fails_all_end(monkeypatch):
    monkeypatch.setattr("tools.launch.runner.FAREWELL_SECONDS", 0.2)
    wait, output, started = "import time; print('here', flush=True); time.sleep(600)", io.StringIO(), time.monotonic()
    with Group([python("a", wait), python("b", "raise SystemExit(3)"), python("c", wait)], output) as group:
        assert group.wait() == 3
        assert [process.returncode for process in group.processes] == [-signal.SIGTERM, 3, -signal.SIGTERM]
    assert time.monotonic() - started < 60
    assert "[launch] process b ended with exit status 3; the others are ended\n" in output.getvalue()


def test_one_that_does_not_want_to_end_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr("tools.launch.runner.FAREWELL_SECONDS", 0.1)
    monkeypatch.setattr("tools.launch.runner.TERMINATION_SECONDS", 0.1)
    here, output = str(tmp_path / "here"), io.StringIO()
    deaf = "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    deaf += f"; pathlib.Path({here!r}).touch(); time.sleep(600)"
    failing = f"import os, time\nwhile not os.path.exists({here!r}): time.sleep(0.01)\nos.abort()"
    with Group([python("a", deaf), python("b", failing)], output) as group:
        assert group.wait() == 128 + signal.SIGABRT
        assert [process.returncode for process in group.processes] == [-signal.SIGKILL, -signal.SIGABRT]
    assert "[launch] process b was ended by SIGABRT; the others are ended\n" in output.getvalue()


def test_a_failure_starts_all_again_and_a_mistake_does_not(tmp_path, capfd):
    count = f"""
import os, pathlib, sys
seen = pathlib.Path({str(tmp_path)!r}) / os.environ["NAME"]
number = len(seen.read_text()) if seen.exists() else 0
seen.write_text("x" * (number + 1))
sys.exit(int(os.environ["STATUS"]) if number < 2 and os.environ["NAME"] == "b" else 0)
"""
    commands = [python(name, count, NAME=name, STATUS="1") for name in "ab"]
    assert run_together(commands, restarts=1) == 1
    assert run_together(commands, restarts=5) == 0
    assert [(tmp_path / name).read_text() for name in "ab"] == ["xxx", "xxx"]
    (tmp_path / "b").unlink()
    assert run_together([python("b", count, NAME="b", STATUS="2")], restarts=5) == 2
    assert (tmp_path / "b").read_text() == "x"
    assert "exit status 1; all start again (1 of 1 times)" in capfd.readouterr().out


def test_a_signal_is_passed_on_as_the_wish_to_end():
    polite = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('ready', flush=True)"
    )
    command = [sys.executable, "-m", "tools.launch", "local", "--processes=2", "--restarts=3", "--"]
    process = subprocess.Popen(
        [*command, "python", "-c", f"{polite}; time.sleep(600)"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline().endswith("ready\n")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "")
