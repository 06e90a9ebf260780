import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax import gin_files
from hephaestus_jax.architecture import LinearRopeScaling, RopeScaling, YarnRopeScaling
from hephaestus_jax.config import PARTS, MeshConfig, ModelConfig, TrainConfig
from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.config import ForgeConfig
from hephaestus_jax.forge.environments.assignments import RolloutConfig
from hephaestus_jax.gin_files import (
    SHIPPED,
    find_gin_file,
    load_gin,
    load_gin_with_text,
    operative_text,
    split_overrides,
)


@dataclasses.dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclasses.dataclass(frozen=True)
class Settings:
    path: str
    steps: int = 3
    rate: float = 0.5
    names: tuple[str, ...] | None = None
    pair: tuple[int, str] = (1, "a")
    mode: Literal["fast", "slow"] = "fast"
    flag: bool = False
    inner: Inner = dataclasses.field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.steps < 1:  # would be a TypeError for a string
            raise UserError(f"steps is {self.steps}; it must be at least 1")


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def loaded(text: str, *overrides: str) -> Settings:
        path = tmp_path / "settings.gin"
        path.write_text(text)
        return load_gin(Settings, path, overrides, [Inner])

    return loaded


def test_fields_macros_and_references(load: Any) -> None:
    text = "STEPS = 7\nSettings.path = 'a'\nSettings.steps = %STEPS\nSettings.inner = @Inner()\nInner.depth = 5\n"
    made = load(text, "Settings.rate=1", "Settings.names=('x', 'y')")
    assert made == Settings("a", 7, 1, ("x", "y"), inner=Inner(5))
    assert type(made) is Settings and type(made.inner) is Inner
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("PATH=/data/my corpus", "/data/my corpus"),
        ("PATH=gs://bucket/x=1", "gs://bucket/x=1"),
        ("PATH='quoted'", "quoted"),
        ("PATH=it's", "it's"),
        ("PATH=back\\slash", "back\\slash"),
        ("PATH=gs://bucket/my%20data", "gs://bucket/my%20data"),
        ("PATH=" + "/a long%20way 'off'" * 30, "/a long%20way 'off'" * 30),
        ('PATH=it\'s %HOME or "%x"', 'it\'s %HOME or "%x"'),
        ("Settings.path=~/x.json", "~/x.json"),
        ("PATH=", ""),
    ],
)
def test_bare_strings(load: Any, override: str, value: str) -> None:
    assert load("PATH = 'default'\nSettings.path = %PATH\n", override).path == value


def test_required_macros_can_be_given(load: Any) -> None:
    assert load("PATH = %gin.REQUIRED\nSettings.path = %PATH\n", "PATH=/x").path == "/x"
    assert load("Settings.path = %PATH\n", "PATH=/x").path == "/x"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("PATH = %gin.REQUIRED\nSettings.path = %PATH", [], "PATH must be given; add --gin.PATH=..."),
        ("A = %gin.REQUIRED\nSettings.path = %A\nSettings.steps = %B", [], "A, B must be given"),
        ("Settings.path = %gin.REQUIRED", [], "Settings.path must be given"),
        ("Settings.steps = 1", [], "'path' must be given"),
        ("Settings.path = 'a'\nSettings.step = 1", [], "no setting is called step; did you mean steps?"),
        ("Settings.path = 'a'", ["Settings.step=1"], "no setting is called step; did you mean steps?"),
        ("Setings.path = 'a'", [], "nothing is called Setings; known are Settings, Inner"),
        ("PATH = 'a'\nSettings.path = %PATH", ["PAHT=b"], "no such name in the gin file; did you mean PATH?"),
        ("Settings.path = 'a'", ["nonsense"], "is not understood; write --gin.NAME=value"),
        ("Settings.path = 3", [], "Settings.path is 3; it must be of type str"),
        ("Settings.path = 'a'\nSettings.steps = 'x'", [], "Settings.steps is 'x'; it must be of type int"),
        ("Settings.path = 'a'\nSettings.steps = True", [], "Settings.steps is True"),
        ("Settings.path = 'a'\nSettings.steps = 1.5", [], "Settings.steps is 1.5"),
        ("Settings.path = 'a'\nSettings.rate = None", [], "Settings.rate is None"),
        ("Settings.path = 'a'\nSettings.names = 'xy'", [], "Settings.names is 'xy'"),
        ("Settings.path = 'a'\nSettings.names = ['x']", [], "Settings.names is ['x']"),
        ("Settings.path = 'a'\nSettings.names = ('x', 1)", [], "Settings.names is ('x', 1)"),
        ("Settings.path = 'a'\nSettings.pair = (1,)", [], "Settings.pair is (1,)"),
        ("Settings.path = 'a'\nSettings.mode = 'medium'", [], "Settings.mode is 'medium'"),
        ("Settings.path = 'a'\nSettings.flag = 1", [], "Settings.flag is 1"),
        ("Settings.path = 'a'\nSettings.inner = 1", [], "Settings.inner is 1"),
        ("Settings.path = 'a'\nSettings.inner = @Inner()\nInner.depth = 'x'", [], "Inner.depth is 'x'"),
        ("Settings.path = 'a'\nSettings.inner = @Outer()", [], "nothing is called @Outer()"),
        ("Settings.path = 'a'\nSettings.steps = 0", [], "steps is 0; it must be at least 1"),
        ("Settings.path = ", [], "Unable to parse"),
        ("include 'gin/nothing.gin'", [], "gin file gin/nothing.gin exists neither here nor in the project"),
        ("import no_such_module", [], "no_such_module"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(load: Any, text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(text, *overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value) and "settings.gin" in str(caught.value)


def test_an_error_leaves_nothing_behind(load: Any) -> None:
    with pytest.raises(UserError):
        load("Settings.path = 'a'\nSettings.steps = 0\nInner.depth = 9\n")
    assert load("Settings.path = 'b'\nSettings.inner = @Inner()\n") == Settings("b")


def test_files_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = SHIPPED[0] / "corpora" / "installed.gin"
    assert find_gin_file("gin/corpora/installed.gin") == shipped.resolve()
    assert find_gin_file(str(shipped)) == shipped.resolve()
    (tmp_path / "gin" / "corpora").mkdir(parents=True)
    own = tmp_path / "gin" / "corpora" / "installed.gin"
    own.write_text("")
    assert find_gin_file("gin/corpora/installed.gin") == own  # what lies here comes first
    with pytest.raises(UserError, match="which ships gin/corpora/environments.gin, gin/corpora/forge"):
        find_gin_file("gin/corpora/instaled.gin")
    with pytest.raises(UserError, match="exists neither here"):
        find_gin_file(tmp_path / "gin")  # a folder


def test_shipped_files_include_each_other_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = load_gin(ForgeConfig, "gin/corpora/installed_sample.gin", ["WORKERS=1"])
    assert made.packages and made.sample < 1 and made.workers == 1


def test_an_installed_package_has_the_files_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gin_files, "SHIPPED", (tmp_path / "absent", tmp_path / "shipped_gin"))
    (tmp_path / "shipped_gin" / "models").mkdir(parents=True)
    (tmp_path / "shipped_gin" / "models" / "x.gin").write_text("include 'gin/base.gin'\nSettings.steps = 9\n")
    (tmp_path / "shipped_gin" / "base.gin").write_text("Settings.path = 'p'\n")
    assert load_gin(Settings, "gin/models/x.gin") == Settings("p", 9)


def test_later_files_override_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "a.gin").write_text("Settings.path = 'a'\nSettings.steps = 1\n")
    (tmp_path / "b.gin").write_text("Settings.path = 'b'\n")
    assert load_gin(Settings, [tmp_path / "a.gin", tmp_path / "b.gin"]) == Settings("b", 1)


def test_the_operative_text_binds_everything_and_loads_to_the_same(tmp_path: Path) -> None:
    text = "STEPS = 7\nSettings.path = 'a'\nSettings.steps = %STEPS\nSettings.inner = @Inner()\nInner.depth = 5\n"
    (tmp_path / "a.gin").write_text(text)
    loaded = load_gin_with_text(Settings, tmp_path / "a.gin", ["Settings.names=('x',)"], [Inner])
    assert loaded.operative == (
        "Settings.flag = False\nSettings.inner = @Inner()\nSettings.mode = 'fast'\nSettings.names = ('x',)\n"
        "Settings.pair = (1, 'a')\nSettings.path = 'a'\nSettings.rate = 0.5\nSettings.steps = 7\n\nInner.depth = 5\n"
    )
    (tmp_path / "b.gin").write_text(loaded.operative)
    again = load_gin_with_text(Settings, tmp_path / "b.gin", [], [Inner])
    assert again == loaded and again.value == load_gin(Settings, tmp_path / "a.gin", ["Settings.names=('x',)"], [Inner])


text = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
floats = st.floats(min_value=1e-300, allow_nan=False, allow_infinity=False)


@settings(max_examples=50, deadline=None)
@given(
    made=st.builds(
        TrainConfig,
        run_dir=text.filter(bool),
        mixture=text,
        model=st.builds(
            ModelConfig,
            name=text,
            vocab_size=st.integers(1, 1 << 40),
            embed_dim=st.just(4),
            mlp_dim=st.just(4),
            num_layers=st.just(1),
            num_heads=st.just(1),
            num_kv_heads=st.just(1),
            head_dim=st.just(2),
            rope_theta=floats,
            rope_scaling=st.none()
            | st.builds(RopeScaling, factor=floats)
            | st.builds(LinearRopeScaling, factor=floats)
            | st.builds(YarnRopeScaling, floats, st.integers(1, 1 << 20)),
            layer_pattern=st.sampled_from([("full",), ("unrotated",)]),
            tied_embeddings=st.booleans(),
        ),
        train_steps=st.integers(1000, (1 << 31) - 1),
        batch_size=st.just(8),
        mesh=st.builds(MeshConfig, fsdp=st.sampled_from([-1, 2])),
    )
)
def test_the_operative_text_of_a_run_loads_to_the_same_run(
    tmp_path_factory: pytest.TempPathFactory, made: TrainConfig
) -> None:
    path = tmp_path_factory.mktemp("gin") / "run.gin"
    path.write_text(operative_text(made), "utf-8", newline="")
    again = load_gin_with_text(TrainConfig, path, also=PARTS)
    assert again.value == made and again.operative == operative_text(made)


@dataclasses.dataclass(frozen=True)
class Pair:
    left: Any
    right: Any = None


@pytest.mark.parametrize("value", [Pair(float("nan")), Pair(float("inf")), Pair(object()), Pair(Inner(1), Inner(2))])
def test_what_gin_cannot_say_is_no_operative_text(value: Pair) -> None:
    with pytest.raises(ValueError, match="cannot be written in gin"):
        operative_text(value)


def test_one_part_in_two_places_is_written_once() -> None:
    assert (
        operative_text(Pair(Inner(3), Inner(3))) == "Pair.left = @Inner()\nPair.right = @Inner()\n\nInner.depth = 3\n"
    )


def test_overrides_are_told_from_other_arguments() -> None:
    assert split_overrides(["--out", "x", "--gin.A=1", "--gin_file=b"]) == (["A=1"], ["--out", "x", "--gin_file=b"])


def test_every_shipped_gin_file_of_a_corpus_loads() -> None:
    files = sorted((SHIPPED[0] / "corpora").glob("*.gin"))
    assert len(files) >= 2
    for file in files:
        target = RolloutConfig if file.name == "environments.gin" else ForgeConfig
        assert isinstance(load_gin(target, file), target)
        first = file.read_text().split("\n\n")[0]
        assert "# Required:" in first and "# Commonly changed:" in first
    assert os.sep in str(files[0])
