"""What is told of a command and a checkout: enough to repeat it, nothing private."""

import json
import subprocess
from pathlib import Path

import pytest

from ecgscale import provenance
from ecgscale.provenance import public_argv

KEY = "a1b2c3d4e5" * 4


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["/home/u/venv/bin/ecgscale", "sweep", "sweeps/g.yaml"], ["ecgscale", "sweep", "sweeps/g.yaml"]),
        (["--data", "/data/my ecg/code 15"], ["--data", "code 15"]),
        (["--out=/r/x/"], ["--out=x"]),
        (["~/a/b.yaml", "../../who/g.yaml"], ["b.yaml", "who/g.yaml"]),
        ([r"C:\Users\me\x.yaml"], ["x.yaml"]),
        (["A:/mnt/b/c,/mnt/d/e"], ["c,e"]),
        (["--address", "ray://10.0.0.1:10001"], ["--address", "…"]),
        (["--address=192.168.1.7:6379"], ["--address=…"]),
        (["https://me:pw@host.org/x"], ["…"]),
        (["--wandb-api-key", "abc", "--seed", "1"], ["--wandb-api-key", "…", "--seed", "1"]),
        (["--token=abc", "WANDB_API_KEY=q", "--Password", "p"], ["--token=…", "WANDB_API_KEY=…", "--Password", "…"]),
        ([KEY, f"--x={KEY}"], ["…", "--x=…"]),
        (["1/8", "--fraction=1/2", "resnet-sl-20K-f1-k6-s0"], ["1/8", "--fraction=1/2", "resnet-sl-20K-f1-k6-s0"]),
    ],
)
def test_a_command_is_told_without_folders_addresses_and_secrets(given, shown):
    assert json.loads(public_argv(given)) == shown


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that this package seems to run from."""
    (tmp_path / "ecgscale").mkdir()
    (tmp_path / "ecgscale" / "provenance.py").write_text("one\n")
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    fresh(provenance.git_state, provenance.git_diff)
    yield tmp_path
    fresh(provenance.git_state, provenance.git_diff)


def fresh(*functions) -> None:
    for function in functions:
        function.cache_clear()


def test_changes_that_are_not_committed_are_told_apart_by_a_hash(checkout):
    assert provenance.git_state()[1] is False and provenance.git_diff() is None
    found = []
    for text in ("two\n", "three \xff\n", "two\n"):
        (checkout / "ecgscale" / "provenance.py").write_bytes(text.encode("latin-1"))
        fresh(provenance.git_state, provenance.git_diff)
        assert provenance.git_state()[1] is True
        found.append(provenance.git_diff())
    assert found[0] == found[2] != found[1]
    assert all(len(mark) == 64 and int(mark, 16) for mark in found)


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Sun Feb 25", "535.161.08"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build", "570.86.15"),
        ("something else", None),
    ],
)
def test_the_drivers_version_is_read_as_linux_tells_it(monkeypatch, told, version):
    fresh(provenance.driver_version)
    monkeypatch.setattr(Path, "read_text", lambda *arguments, **keywords: told)
    assert provenance.driver_version() == version
    fresh(provenance.driver_version)


def test_a_host_is_told_from_others_and_not_named(monkeypatch):
    found = set()
    for name in ("login1.cluster.org", "login2.cluster.org"):
        fresh(provenance.host)
        monkeypatch.setattr(provenance.socket, "gethostname", lambda name=name: name)
        found.add(provenance.host())
    fresh(provenance.host)
    assert len(found) == 2 and not any("login" in mark for mark in found)
