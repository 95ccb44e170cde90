"""`samrt build`: its options, what it prints, and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_builds import FULL, the_set

from samrt.cli import main

pytest_plugins = ("tensorrt_fixtures", "toy_fixtures")


@pytest.mark.usefixtures("without_gpu")
def test_the_command(own_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--backend tensorrt_rtx --precision fp32 --compute-capability 8.6,8.9 --max-batch 2 --max-prompts 3"
    assert main(["build", str(own_bundle), *words.split(), "--max-points", "4", "--workspace", "500"]) == 0
    manifest = the_set(own_bundle)
    assert (manifest.compute_capabilities, manifest.limits) == (("8.6", "8.9"), FULL.limits)
    out, err = capsys.readouterr()
    assert out == ""
    assert " s] building fp32-dense engines" in err
    assert main(["info", str(own_bundle)]) == 0
    out, _ = capsys.readouterr()
    assert f"engines {manifest.name}" in out
    assert "2 images, 3 prompts of 4 points at once" in out
    assert "compared not with the bundle yet" in " ".join(out.split())


@pytest.mark.parametrize(
    "words", [("--compute-capability", "sm_89"), ("--max-points", "x"), ("--precision", "int8"), ()]
)
def test_wrong_usage(words: tuple[str, ...], own_bundle: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["build", *([str(own_bundle)] if words else []), *words])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("--max-points", "0"),
        ("--max-batch", "-1"),
        ("--workspace", "0"),
        ("--workspace", "9" * 20),
        ("--memory-limit", "0"),
        ("--time-limit", "nan"),
    ],
)
def test_values_out_of_range(words: tuple[str, ...], own_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(own_bundle), *words]) == 1
    assert "must be" in capsys.readouterr().err
