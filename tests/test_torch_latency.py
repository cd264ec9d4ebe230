"""The benchmark of torch models, on small ones: who is wrong, and a GPU that is not there."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

# What torch's own fusion imports.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")


def main(arguments: list[str]) -> int:
    from benchmarks import torch_latency

    return torch_latency.main(arguments)


def test_it_says_who_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "raw.json"
    arguments = ["conv_used_twice", "grouped_transpose_norm", "--backend", "eager", "--rounds", "3"]
    assert main([*arguments, "--channels-last", "--json", str(file)]) == 0
    found = {(entry["model"], entry["form"]): entry for entry in json.loads(file.read_text())["entries"]}
    verdicts = {form: found["conv_used_twice", form]["verdict"] for form in ("original", "fx.fuse", "ours")}
    assert verdicts == {"original": "right", "fx.fuse": "WRONG", "ours": "right"}
    assert found["conv_used_twice", "fx.fuse"]["error"] > 0.01
    assert found["grouped_transpose_norm", "ours"]["verdict"] == "right"
    assert all(len(entry["seconds"]) == 3 for entry in found.values())
    assert "| fx.fuse  | eager   |" in capsys.readouterr().out


def test_a_gpu_that_is_not_there_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    small = ["conv_used_twice", "--backend", "eager", "--rounds", "1", "--device"]
    for devices, status in ((["cuda"], 2), (["cpu", "cuda"], 0)):
        assert main([*small, *devices]) == status
        assert "cuda was not measured: there is no GPU to run on" in capsys.readouterr().out
