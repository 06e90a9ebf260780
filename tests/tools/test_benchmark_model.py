import json

import pytest

from hephaestus_jax.errors import UserError
from tools.benchmark.__main__ import main


def test_the_line_it_prints(capsys: pytest.CaptureFixture) -> None:
    options = ["--gin_file", "gin/models/tiny.gin", "--batch", "1", "--length", "16", "--steps", "1", "--rounds", "1"]
    main(["model", *options, "--depths", "1", "2"])
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert result["model"] == "tiny" and result["tokens_per_s"] > 0 and result["compile_ratio"] > 0
    assert set(result["compile_s"]) == {"1_layers", "2_layers"}


def test_bad_options() -> None:
    with pytest.raises(UserError, match="must be 1 or more"):
        main(["model", "--batch", "0"])
    with pytest.raises(UserError, match="exists neither here nor in the project"):
        main(["model", "--gin_file", "gin/models/absent.gin"])
