"""Output that nobody takes, and signals: the right exit status, one sentence, and nothing left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from fuser import cli, terminal
from fuser.demo import build_repvgg
from fuser.errors import OutputError

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no such device here")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that do not compute the same, and one with external data."""
    folder = tmp_path_factory.mktemp("models")
    onnx.save(build_repvgg(((4, 1),), classes=5), folder / "a.onnx")
    onnx.save(build_repvgg(((4, 1),), classes=5, seed=1), folder / "b.onnx")
    separate = build_repvgg(((4, 1),), classes=5)
    onnx.save(separate, folder / "c.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    return folder


def shell(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line in a shell, `fuser` being the command."""
    text = text.replace("fuser ", f"{sys.executable} -m fuser ")
    return subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )


@needs_full
@pytest.mark.parametrize("command", ["passes", "--help", "inspect a.onnx", "inspect a.onnx --json -"])
@pytest.mark.parametrize(
    ("where", "reason"), [("> /dev/full", "there is no space left"), (">&-", "it is closed")]
)
def test_what_cannot_be_printed(models: Path, command: str, where: str, reason: str) -> None:
    result = shell(f"fuser {command} {where}", models)
    assert result.returncode == 2
    assert result.stderr == (
        f"graph-fuser: the result cannot be printed: {reason}; everything else is done\n"
    )


@needs_full
@pytest.mark.parametrize("where", ["> /dev/full", ">&-", "| head -c 0; exit ${PIPESTATUS[0]}"])
def test_a_model_is_written_whether_the_report_can_be_printed_or_not(
    models: Path, tmp_path: Path, where: str
) -> None:
    result = shell(f"fuser optimize a.onnx -o {tmp_path}/out.onnx {where}", models)
    assert result.returncode == (141 if "head" in where else 2)
    assert len(onnx.load(tmp_path / "out.onnx").graph.node) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]


@needs_full
@pytest.mark.parametrize("where", ["> /dev/full", ">&-", "| head -c 0; exit ${PIPESTATUS[0]}"])
def test_a_difference_is_one_whether_it_can_be_printed_or_not(models: Path, where: str) -> None:
    result = shell(f"fuser verify a.onnx b.onnx {where}", models)
    assert result.returncode == 1
    assert result.stderr.startswith("graph-fuser: b.onnx does not compute what a.onnx computes")
    assert result.stderr.count("\n") == 1


def test_a_closed_stderr(models: Path) -> None:
    assert shell("fuser inspect missing.onnx 2>&-", models).returncode == 2


def test_closed_streams_do_not_become_files(models: Path, tmp_path: Path) -> None:
    """The model that is written would be number 1, and what a library prints would be in it."""
    result = shell(f"fuser optimize a.onnx -o {tmp_path}/out.onnx <&- >&- 2>&-", models)
    assert result.returncode == 2
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"))


@pytest.mark.parametrize(
    ("command", "report", "reason"),
    [
        ("optimize c.onnx -o out.onnx", "weights", "is also the path of weights of c.onnx"),
        ("inspect c.onnx", "weights", "is also the path of weights of c.onnx"),
        ("inspect c.onnx", "c.onnx", "is also the path of a model"),
        ("verify a.onnx c.onnx", "weights", "is also the path of weights of c.onnx"),
        ("verify a.onnx b.onnx --inputs x.npz", "x.npz", "is also the path of the inputs"),
        ("bench a.onnx c.onnx", "weights", "is also the path of weights of c.onnx"),
        (
            "optimize a.onnx -o out.onnx",
            "out.onnx.0123456789abcdef.data",
            "is called as the weights of out.onnx are",
        ),
    ],
)
def test_a_report_overwrites_nothing(
    models: Path,
    command: str,
    report: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(models)
    before = {path.name: path.read_bytes() for path in models.iterdir()}
    assert cli.run([*command.split(), "--json", report]) == 2
    assert capfd.readouterr().err == f"graph-fuser: --json {report} {reason}\n"
    assert {path.name: path.read_bytes() for path in models.iterdir()} == before


WAITING = """
import sys, time
from fuser import cli, terminal
from fuser.hosts.onnx.file import files as onnx_io
write = onnx_io.write
def waiting(*arguments, **options):
    write(*arguments, **options)
    print("written", file=sys.stderr, flush=True)
    time.sleep(60)
onnx_io.write = waiting
terminal.prepare()
terminal.end(cli.run(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing(models: Path, tmp_path: Path, number: signal.Signals) -> None:
    arguments = ["optimize", str(models / "c.onnx"), "-o", str(tmp_path / "out.onnx"), "--no-verify"]
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "written\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(number)
        assert process.wait(30) == 128 + number
        assert process.stderr.read() == ""
    assert list(tmp_path.iterdir()) == []


def test_who_was_told_to_ignore_a_hangup_goes_on(models: Path, tmp_path: Path) -> None:
    """As under nohup."""
    result = shell(
        f"trap '' HUP; fuser optimize a.onnx -o {tmp_path}/out.onnx --no-verify & "
        "sleep 0.2; kill -HUP $!; wait $!",
        models,
    )
    assert result.returncode == 0
    assert (tmp_path / "out.onnx").exists()


def test_what_stops_a_command_stops_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: dict[int, object] = {}
    monkeypatch.setattr(signal, "signal", handled.__setitem__)
    with pytest.raises(terminal.Stopped):
        terminal._stop(signal.SIGTERM, None)
    assert handled == dict.fromkeys(terminal.STOPPING, signal.SIG_IGN)


@needs_full
def test_a_stream_that_failed_once_fails_always() -> None:
    with FULL.open("w", buffering=1) as full:
        stream = terminal.Printed(full)
        for _ in range(2):  # by then it leads elsewhere, and has room
            with pytest.raises(OutputError, match="there is no space left"):
                stream.write("text\n")
    with pytest.raises(OutputError, match="it is closed"):
        terminal.Printed(None).write("text")
