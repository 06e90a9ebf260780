"""The same rows on any number of hosts and meshes, from real caches, without TensorFlow and from any storage."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import mixtures_on_disk
import pytest
from compiling import QUICK

from hephaestus_jax.data.cache import Cache
from hephaestus_jax.data.loader import Loader, batch_digest, evaluation_batches, split_rows
from hephaestus_jax.data.mixture import open_mixture
from hephaestus_jax.data.storage import Storage, copy
from hephaestus_jax.errors import UserError

BATCH_SIZE, BATCHES = 16, 200  # 3,200 rows: past a stage boundary and through many epochs
ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 240


@pytest.fixture(scope="module")
def mixture_path(tmp_path_factory):
    return mixtures_on_disk.write_mixture(tmp_path_factory.mktemp("mixture"))


@pytest.fixture(scope="module")
def one_host_digests(mixture_path):
    with Loader(open_mixture(mixture_path), BATCH_SIZE) as loader:
        return [batch_digest(batch) for batch in itertools.islice(loader, BATCHES)]


def run_python(arguments, **environment):
    """Starts a Python process in the repository."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def output(process):
    """What a process printed, once it ended well."""
    try:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, err[-3000:]
    return out


def test_the_digests_tell_batches_apart(one_host_digests):
    assert len(set(one_host_digests)) == BATCHES


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_hosts_in_one_process_assemble_the_same_batches(mixture_path, one_host_digests, hosts):
    mixture = open_mixture(mixture_path)
    loaders = [Loader(mixture, BATCH_SIZE, 0, split_rows(BATCH_SIZE, host, hosts)) for host in range(hosts)]
    digests = [batch_digest(*parts) for parts in itertools.islice(zip(*loaders, strict=True), BATCHES)]
    for loader in loaders:
        loader.close()
    assert digests == one_host_digests


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_as_real_processes_assemble_the_same_batches(mixture_path, one_host_digests, hosts):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = str(ROOT / "tests" / "data" / "loader_process.py")
    numbers = [BATCHES, BATCH_SIZE]
    processes = [run_python([script, mixture_path, *map(str, [*numbers, host, hosts, port])]) for host in range(hosts)]
    try:
        outputs = [output(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert json.loads(outputs[0].splitlines()[-1]) == one_host_digests


@pytest.mark.slow
def test_every_sharding_of_eight_devices_holds_the_batch(mixture_path):
    code = """
    import itertools, sys
    import jax, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
    from hephaestus_jax.data.loader import Loader, host_rows, to_global
    from hephaestus_jax.data.mixture import open_mixture
    from hephaestus_jax.errors import UserError

    mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2, 1), ("data", "fsdp", "context", "tensor"))
    batch = next(Loader(open_mixture(sys.argv[1]), 16))
    for spec in (P(), P("data"), P(None, "context"), P(("data", "fsdp"), "context"), P(("fsdp", "data", "context"))):
        sharding = NamedSharding(mesh, spec)
        assert host_rows(sharding, 16).tolist() == list(range(16))
        arrays = to_global(batch, sharding)
        for name in ("tokens", "segment_ids", "positions", "loss_weights", "task_ids"):
            assert np.array_equal(np.asarray(arrays[name]), getattr(batch, name)), (spec, name)
            assert arrays[name].dtype == getattr(batch, name).dtype
        assert arrays["tokens"].sharding == sharding
        assert arrays["task_ids"].sharding.spec == P(*spec[:1])

    def refusal(function, *arguments):
        try:
            function(*arguments)
        except UserError as error:
            return str(error)
        raise AssertionError("not refused")

    message = refusal(host_rows, NamedSharding(mesh, P(("data", "fsdp"))), 10)
    assert message == (
        "a batch of 10 rows does not divide over 4 row shards (mesh axes data=2 × fsdp=2); use a batch size of 8 or 12"
    ), message
    three = Mesh(np.array(jax.devices()[:3]), ("context",))
    message = refusal(to_global, batch, NamedSharding(three, P(None, "context")))
    assert "64 tokens" in message and "context=3" in message, message
    half = next(Loader(open_mixture(sys.argv[1]), 16, 0, np.arange(8)))
    try:
        to_global(half, NamedSharding(mesh, P("data")))
    except Exception as error:
        assert "lacks rows 8 to 16" in str(error), error
    else:
        raise AssertionError("half a batch passed for a whole one")
    print("all well")
    """
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {QUICK}", "JAX_PLATFORMS": "cpu"}
    assert "all well" in output(run_python(["-c", textwrap.dedent(code), mixture_path], **flags))


def test_reading_needs_neither_tensorflow_nor_anything_of_the_build(mixture_path, one_host_digests):
    code = """
    import itertools, json, sys

    BLOCKED = {
        "tensorflow", "seqio", "tensorflow_datasets", "apache_beam", "pyarrow", "tokenizers", "transformers",
        "sentencepiece", "jax", "flax", "torch", "tiktoken",
    }

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in BLOCKED:
                raise ImportError(f"{name} is not for the trainer")

    sys.meta_path.insert(0, Refuse())
    from hephaestus_jax.data.loader import Loader, batch_digest, evaluation_batches
    from hephaestus_jax.data.mixture import open_mixture
    from hephaestus_jax.data.storage import Storage, copy

    def digests(url):
        with Loader(open_mixture(url), 16) as loader:
            return [batch_digest(batch) for batch in itertools.islice(loader, 20)]

    from pathlib import Path
    copy(Storage(str(Path(sys.argv[1]).parent)), Storage("memory://elsewhere/mixture"))
    here, there = digests(sys.argv[1]), digests("memory://elsewhere/mixture")
    evaluated = sum(1 for _ in evaluation_batches(open_mixture(sys.argv[1]).validation["docs"], 16))
    assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
    print(json.dumps([here, there, evaluated]))
    """
    here, there, evaluated = json.loads(output(run_python(["-c", textwrap.dedent(code), mixture_path])))
    assert here == there == one_host_digests[:20]
    assert evaluated == -(-open_mixture(mixture_path).validation["docs"].manifest.rows // 16)


def test_a_mixture_in_memory_reads_the_same(mixture_path, one_host_digests):
    copy(Storage(str(Path(mixture_path).parent)), Storage("memory://test_loader_hosts"))
    with Loader(open_mixture("memory://test_loader_hosts/mixture.json"), BATCH_SIZE, 96) as loader:
        assert [batch_digest(batch) for batch in itertools.islice(loader, 5)] == one_host_digests[6:11]


def test_evaluation_of_a_real_cache(mixture_path):
    cache = open_mixture(mixture_path).validation["docs"]
    batches = list(evaluation_batches(cache, 10))
    weight = sum(float(batch.loss_weights.sum(dtype="float64")) for batch in batches)
    assert weight == pytest.approx(cache.manifest.loss_weight, rel=1e-6)
    assert sum((batch.rows >= 0).sum() for batch in batches) == cache.manifest.rows


# ---- what opening refuses


@pytest.fixture
def altered(mixture_path, tmp_path):
    """A copy of the mixture folder, and a function that edits its mixture.json."""
    folder = tmp_path / "copy"
    shutil.copytree(Path(mixture_path).parent, folder)

    def edit(change):
        value = json.loads((folder / "mixture.json").read_text())
        change(value)
        (folder / "mixture.json").write_text(json.dumps(value))
        return str(folder)

    return edit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.update(sequence_length=128), "sequence length 64, but mixture .* built with 128"),
        (lambda value: value["vocabulary"].update(digest="f00"), "vocabulary digest .* built with f00"),
        (lambda value: value["tasks"]["text"].update(digest="0" * 64), "task 'text' has content digest"),
        (lambda value: value["tasks"]["code"].update(rows=7), "task 'code' has row count"),
        (lambda value: value["validation"]["docs"].update(digest="0"), "task 'docs' has content digest"),
        (lambda value: value["tasks"]["docs"].update(cache="caches/gone"), "no cache at .*caches/gone"),
        (lambda value: value["stages"][1]["rates"].update(prose=1), "unknown task 'prose'"),
    ],
)
def test_a_mixture_that_does_not_fit_its_caches_is_refused(altered, change, message):
    with pytest.raises(UserError, match=message) as caught:
        open_mixture(altered(change))
    assert "\n" not in str(caught.value)


def test_caches_of_two_vocabularies_or_lengths_are_refused(altered, tmp_path):
    from token_sources import RandomSource, write_vocabulary

    from hephaestus_jax.data.cache_build import build_cache

    vocabulary = write_vocabulary(tmp_path / "other", extra=45)
    built = build_cache(RandomSource(vocabulary, records=30), tmp_path / "other", mixtures_on_disk.LENGTH)
    part = {"cache": str(built.path), "rows": built.manifest.rows, "digest": built.manifest.digest}
    with pytest.raises(UserError, match="vocabulary digest"):
        open_mixture(altered(lambda value: value["tasks"].update(text=part)))
    built = build_cache(RandomSource(vocabulary, records=30), tmp_path / "other", 32)
    part = {"cache": str(built.path), "rows": built.manifest.rows, "digest": built.manifest.digest}
    with pytest.raises(UserError, match="sequence length 32"):
        open_mixture(altered(lambda value: value["tasks"].update(text=part)))


def test_a_damaged_row_stops_the_loader_with_one_line(mixture_path, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(Path(mixture_path).parent, folder)
    [cache] = (folder / "caches").glob("docs-*")
    [shard] = [path for path in (cache / "tokens" / "c").rglob("*") if path.is_file()]
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    assert Cache.open(str(cache)).manifest.rows  # nothing is seen before the row is read
    loader = Loader(open_mixture(str(folder)), 64)
    with loader, pytest.raises(UserError, match="damaged") as caught:
        list(itertools.islice(loader, 20))
    assert "rebuild" in str(caught.value)
