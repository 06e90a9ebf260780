"""`python -m tools.launch PLATFORM [options] -- COMMAND`: starts the same command as every process of a run.

  python -m tools.launch local --processes=4 --devices=2 -- python -m train --gin_file=...
  python -m tools.launch ssh   --hosts=host0,host1 --folder=~/hephaestus_jax -- python -m train --gin_file=...
  python -m tools.launch tpu   --name=NODE --zone=ZONE -- python -m train --gin_file=...
  python -m tools.launch tpu   --name=QUEUED_RESOURCE --zone=ZONE --slices=2 -- python -m train --gin_file=...
  python -m tools.launch slurm --nodes=4 --option=--gpus-per-node=8 -- python -m train --gin_file=...

--dry_run prints what would be run, or the script for sbatch. Ctrl-C asks all processes to save and end. When one
fails, the others are ended. docs/operations.md has more.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence

from hephaestus_jax.distributed import COORDINATOR, PROCESS_ID, PROCESSES
from hephaestus_jax.errors import UserError
from tools._command import run
from tools.launch import platforms
from tools.launch.runner import Command, run_together

_OF_A_PROCESS = (COORDINATOR, PROCESSES, PROCESS_ID, "JAX_PLATFORMS", "XLA_FLAGS")  # shown by --dry_run


def main() -> None:
    """The command line."""
    own, command = _split(sys.argv[1:])
    args = _parser().parse_args(own)
    if not command:
        raise UserError("no command to start; write it after --, as in `-- python -m train --gin_file=FILE`")
    if args.platform == "slurm":
        sys.exit(_submit(args, command))
    commands = _commands(args, command)
    if args.dry_run:
        print("\n".join(_shown(one) for one in commands))
        return
    sys.exit(run_together(commands, args.restarts))


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:end]), list(arguments[end + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    platform = parser.add_subparsers(dest="platform", required=True)
    local = platform.add_parser("local", help="processes on this machine")
    local.add_argument("--processes", type=int, required=True)
    local.add_argument("--devices", type=int, default=0, help="virtual CPU devices of each; default: what JAX finds")
    ssh = platform.add_parser("ssh", help="one process on each host, over ssh")
    ssh.add_argument("--hosts", required=True, help="HOST,HOST,...: process 0's first; [USER@]NAME as ssh takes it")
    ssh.add_argument("--port", type=int, default=8476, help="a free one of the first host (default: %(default)s)")
    tpu = platform.add_parser("tpu", help="all hosts of a TPU VM, or of a queued resource of several slices")
    tpu.add_argument("--name", required=True, help="of the TPU VM; of the queued resource where --slices is above 1")
    tpu.add_argument("--zone", required=True)
    tpu.add_argument("--project", default="")
    tpu.add_argument("--slices", type=int, default=1)
    slurm = platform.add_parser("slurm", help="a job of sbatch")
    slurm.add_argument("--name", default="hephaestus", help="of the job (default: %(default)s)")
    slurm.add_argument("--nodes", type=int, required=True)
    slurm.add_argument("--tasks_per_node", type=int, default=1, help="processes; one per GPU there (default: 1)")
    slurm.add_argument("--option", action="append", default=[], help="more for sbatch; may be repeated")
    for one in (ssh, tpu, slurm):
        one.add_argument("--folder", default="", help="to run in, on every host; it holds the checkout")
        one.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    for one in (local, ssh, tpu):
        one.add_argument("--restarts", type=int, default=0, help="how often to start all again after one failed")
    for one in (local, ssh, tpu, slurm):
        one.add_argument("--dry_run", action="store_true", help="print what would be run")
    return parser


def _commands(args: argparse.Namespace, command: Sequence[str]) -> list[Command]:
    if args.platform == "local":
        return platforms.local(command, args.processes, args.devices)
    if args.platform == "ssh":
        return platforms.ssh(command, args.hosts.split(","), args.port, args.folder, _variables(args))
    return platforms.tpu(command, args.name, args.zone, args.project, args.slices, args.folder, _variables(args))


def _submit(args: argparse.Namespace, command: Sequence[str]) -> int:
    script = platforms.slurm(
        command, args.name, args.nodes, args.tasks_per_node, args.option, args.folder, _variables(args)
    )
    if args.dry_run:
        print(script, end="")
        return 0
    try:
        return subprocess.run(["sbatch"], input=script, text=True, check=False).returncode
    except FileNotFoundError as error:
        raise UserError("there is no sbatch here; run this on a login node, or use --dry_run") from error


def _variables(args: argparse.Namespace) -> dict[str, str]:
    pairs = [text.partition("=") for text in args.env]
    for name, equals, _ in pairs:
        if not equals or not name.isidentifier():
            raise UserError(f"--env={name}{equals} is no setting; write NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _shown(command: Command) -> str:
    """As one could type it; of the environment, what a process of the run is told by."""
    told = [f"{name}={shlex.quote(command.environment[name])}" for name in _OF_A_PROCESS if name in command.environment]
    return " ".join([*(told if command.arguments[0] not in ("ssh", "gcloud") else []), shlex.join(command.arguments)])


if __name__ == "__main__":
    run(main)
