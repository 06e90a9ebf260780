"""Joining, agreeing and ending: what the environment may say, and real processes on loopback."""

import argparse
import http.server
import json
import os
import signal
import socket
import threading

import pytest
from processes import finish, free_port, start, start_together, wait_for_line

from hephaestus_jax import distributed
from hephaestus_jax.distributed import COORDINATOR, PROCESS_ID, PROCESSES, Cluster
from hephaestus_jax.errors import UserError


def environment(monkeypatch, *values):
    for name, value in zip((COORDINATOR, PROCESSES, PROCESS_ID), values, strict=True):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)


def test_the_environment_names_a_process(monkeypatch):
    environment(monkeypatch, "host0:8476", "4", "3")
    assert Cluster.from_environment() == Cluster("host0:8476", 4, 3)
    environment(monkeypatch, "[::1]:8476", "4", "3")
    assert Cluster.from_environment() == Cluster("[::1]:8476", 4, 3)
    environment(monkeypatch, None, None, None)
    assert Cluster.from_environment() is None
    environment(monkeypatch, None, "1", None)
    assert Cluster.from_environment() == Cluster("", 1, 0)


@pytest.mark.parametrize(
    "values, message",
    [
        (("host0:8476", "2", None), "HEPHAESTUS_PROCESS_ID"),
        (("host0:8476", None, None), "HEPHAESTUS_PROCESSES and HEPHAESTUS_PROCESS_ID"),
        ((None, "2", "0"), "not HEPHAESTUS_COORDINATOR"),
        (("host0:8476", "two", "0"), "HEPHAESTUS_PROCESSES is 'two'"),
        (("host0:8476", "2", "-1"), "HEPHAESTUS_PROCESS_ID is '-1'"),
        (("host0:8476", "2", "2"), "number them from 0 to 1"),
        (("host0:8476", "0", "0"), "must be 1 or more"),
        (("host0", "2", "0"), "write HOST:PORT"),
        ((":8476", "2", "0"), "write HOST:PORT"),
        (("host0:99999", "2", "0"), "write HOST:PORT"),
    ],
)
def test_a_wrong_environment_is_one_line(monkeypatch, values, message):
    environment(monkeypatch, *values)
    with pytest.raises(UserError, match=message) as error:
        Cluster.from_environment()
    assert "\n" not in str(error.value)


def test_one_process_broadcasts_to_itself():
    assert distributed.broadcast({"a": (1, 2.5)}) == {"a": [1, 2.5]}
    assert distributed.is_main()
    distributed.barrier("nobody else")


def test_a_signal_is_remembered_and_its_handler_given_back():
    def before(*_):
        raise AssertionError("the handler that was there before was called")

    previous = signal.signal(signal.SIGTERM, before)
    try:
        with distributed.Preemption() as preemption:
            assert not preemption.requested()
            os.kill(os.getpid(), signal.SIGTERM)
            assert preemption.requested() and preemption.requested()
            os.kill(os.getpid(), signal.SIGTERM)  # a second one changes nothing
            assert preemption.requested()
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, previous)


@pytest.mark.slow
def test_a_signal_to_one_stops_all_at_the_same_step():
    processes = [
        start("run_worker.py", "preempted", devices=4),
        *start_together(2, "run_worker.py", "preempted", devices=2),
    ]
    try:
        heads = [wait_for_line(process, "ready") for process in processes]
        processes[0].send_signal(signal.SIGTERM)
        processes[2].send_signal(signal.SIGTERM)  # of two, one only
    finally:
        ended = finish(processes)
    assert [head.split() for head in heads] == [["ready", "1", "4"], ["ready", "2", "4"], ["ready", "2", "4"]]
    assert [status for status, _, _ in ended] == [0, 0, 0], ended
    stops = [json.loads(output.splitlines()[-1])["stopped"] for _, output, _ in ended]
    assert stops[1] == stops[2]


@pytest.mark.slow
def test_an_error_of_one_process_ends_the_other():
    ended = finish(start_together(2, "run_worker.py", "failing"), timeout_seconds=120)
    assert ended[1][0] == 2
    assert ended[1][2].splitlines()[-1] == "error: row 7 is damaged; build the cache again"
    assert ended[0][0] not in (0, 2)


@pytest.mark.slow
def test_all_processes_get_the_value_of_the_first():
    value = {"process": 0, "text": "é\n", "numbers": [1, 1e-17, None]}
    ended = finish(start_together(2, "run_worker.py", "values"))
    assert [json.loads(output.splitlines()[-1]) for _, output, _ in ended] == [[value, True], [value, False]]


def test_flags_name_a_process_too():
    parser = argparse.ArgumentParser()
    distributed.add_flags(parser)

    def given(*flags):
        return Cluster.from_flags(parser.parse_args(flags))

    assert given() is None
    assert given("--processes=1") == Cluster("", 1, 0)
    assert given("--coordinator=host0:8476", "--processes=4", "--process_id=0") == Cluster("host0:8476", 4, 0)
    with pytest.raises(UserError, match="^--coordinator and --processes given, but not --process_id; give all three"):
        given("--coordinator=host0:8476", "--processes=4")
    with pytest.raises(UserError, match="^--processes is 'all'"):
        given("--coordinator=host0:8476", "--processes=all", "--process_id=0")


class TpuVm(http.server.BaseHTTPRequestHandler):
    """The metadata server of the only host of a slice, one of two."""

    slice_id = 0

    def do_GET(self):
        assert self.headers["Metadata-Flavor"] == "Google"
        values = {
            "agent-worker-number": "0",
            "worker-network-endpoints": "unknown:unknown:127.0.0.1",
            "tpu-env": "ACCELERATOR_TYPE: 'v4-8'\nMEGASCALE_COORDINATOR_ADDRESS: '127.0.0.1:8080'\n"
            f"MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '{self.slice_id}'\n",
        }
        body = values[self.path.removeprefix("/computeMetadata/v1/instance/attributes/")].encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def metadata_servers():
    """Addresses of the metadata servers of both slices."""
    kinds = [type("TpuVm", (TpuVm,), {"slice_id": number}) for number in range(2)]
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) for kind in kinds]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [f"127.0.0.1:{server.server_port}" for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_slurm_and_tpu_metadata_name_a_process(metadata_servers):
    """What JAX finds by itself: real processes that join, on what a platform would say. Not shown: a real one."""
    pytest.importorskip("libtpu")
    pytest.importorskip("requests")
    job = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    ports = [{"JAX_COORDINATOR_PORT": str(free_port())} for _ in range(2)]
    tpu = {"JAX_FORCE_TPU_INIT": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    processes = [
        start("run_worker.py", "values", **job, **ports[0], SLURM_PROCID=number, SLURM_LOCALID=number)
        for number in "01"
    ] + [start("run_worker.py", "metadata", **tpu, **ports[1], GCE_METADATA_IP=address) for address in metadata_servers]
    ended = finish(processes)
    assert [status for status, _, _ in ended] == [0] * 4, ended
    first = {"process": 0, "text": "é\n", "numbers": [1, 1e-17, None]}
    found = [json.loads(output.splitlines()[-1]) for _, output, _ in ended]
    assert found == [[first, True], [first, False]] * 2


@pytest.mark.slow
def test_a_process_that_waits_in_vain_says_so():
    environments = [{COORDINATOR: f"127.0.0.1:{free_port()}", PROCESSES: "2", PROCESS_ID: number} for number in "01"]
    ended = finish([start("run_worker.py", "lonely", **environment) for environment in environments])
    for number, (status, _, errors) in enumerate(ended):
        assert status == 2, errors
        assert f"error: process {number} of 2" in errors and "the others did not come within 1 s" in errors


def test_a_port_that_is_taken_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of HEPHAESTUS_COORDINATOR cannot be used here"):
            distributed.initialise(Cluster(f"127.0.0.1:{port}", 2, 0))
