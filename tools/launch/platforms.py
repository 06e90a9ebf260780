"""The commands that start a run on each platform. Nothing here runs anything."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence

from hephaestus_jax.distributed import COORDINATOR, PROCESS_ID, PROCESSES
from hephaestus_jax.errors import UserError
from tools.launch.runner import Command


def local(arguments: Sequence[str], processes: int, devices: int = 0) -> list[Command]:
    """Processes on this machine that talk over loopback.

    Args:
        arguments: the command; "python" is this interpreter.
        processes: how many.
        devices: virtual CPU devices of each; 0 leaves platform and devices to JAX.
    """
    if processes < 1 or devices < 0:
        raise UserError(f"{processes} processes of {devices} devices; give 1 process or more")
    shared = {**os.environ, PROCESSES: str(processes), "PYTHONUNBUFFERED": "1"}
    if processes > 1:
        shared[COORDINATOR] = f"127.0.0.1:{_free_port()}"
    if devices:
        flags = [os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={devices}"]
        shared |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags).strip()}
    command = [sys.executable if text == "python" else text for text in arguments[:1]] + list(arguments[1:])
    numbers = [{PROCESS_ID: str(number)} if processes > 1 else {} for number in range(processes)]
    return [Command(str(number), command, {**shared, **own}) for number, own in enumerate(numbers)]


def ssh(
    arguments: Sequence[str], hosts: Sequence[str], port: int, folder: str, variables: Mapping[str, str]
) -> list[Command]:
    """One process on each host, the first of them process 0, by plain ssh."""
    if not hosts or len(set(hosts)) != len(hosts):
        raise UserError(f"--hosts has {', '.join(hosts) or 'nothing'}; name every host once, process 0's first")
    coordinator = hosts[0].rpartition("@")[2]
    shared = {**variables, COORDINATOR: f"{coordinator}:{port}", PROCESSES: str(len(hosts))}
    return [
        # -tt: the end of the connection ends the remote command too
        Command(host, ["ssh", "-tt", host, remote(arguments, folder, {**shared, PROCESS_ID: str(number)})], os.environ)
        for number, host in enumerate(hosts)
    ]


def tpu(
    arguments: Sequence[str], name: str, zone: str, project: str, slices: int, folder: str, variables: Mapping[str, str]
) -> list[Command]:
    """All hosts of a TPU VM, or of all slices of a queued resource.

    JAX takes coordinator, number and index of each host from the VM's metadata. Of several slices, the platform sets
    MEGASCALE_COORDINATOR_ADDRESS, MEGASCALE_NUM_SLICES and MEGASCALE_SLICE_ID, which JAX reads as well.
    """
    if slices < 1:
        raise UserError(f"--slices is {slices}; give 1 or more")
    where = [f"--zone={zone}", *([f"--project={project}"] if project else [])]
    kind = ["tpu-vm", "ssh", name, "--worker=all"]
    if slices > 1:
        kind = ["queued-resources", "ssh", name, "--node=all", "--worker=all"]
    command = f"--command={remote(arguments, folder, variables)}"
    return [Command(name, ["gcloud", "compute", "tpus", *kind, *where, command], os.environ)]


def slurm(
    arguments: Sequence[str], name: str, nodes: int, tasks_per_node: int, options: Sequence[str], folder: str,
    variables: Mapping[str, str],
) -> str:  # fmt: skip
    """A script for `sbatch`: one step of all tasks, whose processes JAX finds by Slurm's variables.

    Two minutes before the time limit every task gets a SIGTERM, saves and ends: submit the same script again. A job
    that was preempted, or lost a node, is queued again by itself, and resumes.
    """
    if nodes < 1 or tasks_per_node < 1:
        raise UserError(f"{nodes} nodes of {tasks_per_node} tasks; give 1 or more of both")
    head = [f"--job-name={name}", f"--nodes={nodes}", f"--ntasks-per-node={tasks_per_node}"]
    head += ["--requeue", "--open-mode=append", "--signal=TERM@120", *options]
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in head), ""]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    lines += [f"cd {_quoted(folder)}"] if folder else []
    return "\n".join([*lines, f"srun --kill-on-bad-exit=1 {shlex.join(arguments)}"]) + "\n"


def remote(arguments: Sequence[str], folder: str, variables: Mapping[str, str]) -> str:
    """The command as a line for a shell on another host."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    environment = ["env", *settings] if settings else []
    return " ".join([*([f"cd {_quoted(folder)} &&"] if folder else []), "exec", *environment, shlex.join(arguments)])


def _quoted(folder: str) -> str:
    """Quoted, but for a leading ~ which the other host's shell expands."""
    home, rest = ("~/", folder[2:]) if folder.startswith("~/") else ("", folder)
    return home + shlex.quote(rest)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
