import json
from pathlib import Path

import pytest

from hephaestus_jax.errors import UserError
from tools.benchmark.__main__ import main


def test_the_line_it_prints(capsys: pytest.CaptureFixture) -> None:
    model = Path(pytest.importorskip("llama_models").__file__).parent / "llama3" / "tokenizer.model"
    options = ["--vocabulary", str(model), "--megabytes", "0.1", "--rounds", "1", "--unit_records", "64"]
    main(["pack", *options])
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    (measured,) = result["vocabularies"].values()
    assert measured["tokens"] > 10_000 and measured["rows"] >= measured["tokens"] // 2048
    assert 0 < measured["efficiency_percent"] <= 100 and measured["tokenize_and_pack_tokens_per_cpu_s"] > 0
    for packed in result["packing"].values():
        assert 90 < packed["efficiency_percent"] <= 100


def test_bad_options() -> None:
    with pytest.raises(UserError, match="must be positive"):
        main(["pack", "--rounds", "0"])
    with pytest.raises(UserError, match="no benchmark is called"):
        main(["nonsense"])
