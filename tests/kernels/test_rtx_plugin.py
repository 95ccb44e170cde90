"""Engines with samrt's plugin, built by the real TensorRT-RTX without a GPU: its builder calls the plugin's methods.

Each build is a process of its own: a plugin stays registered until the process ends, and the parser might end it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from kernel_builds import ROOT, device_build
from seeded import RELEASED_DECODER, vit_state
from test_kernels_install import BOTH, Machine, make_wheel
from toy_bundle import rewrite_manifest
from uncompared import load_state, write_uncompared

import samrt
from samrt.bundle.graph_check import PLUGIN_NAME
from samrt.engines.plugin import PLUGIN
from samrt.engines.rtx_plugins import TRIED
from samrt.engines.sets import EngineSet, find_engine_sets
from samrt.kernels.library import KERNELS_VERSION, PLUGIN_VARIABLE
from samrt_export.families.sam import RELEASED

CAPABILITIES = "8.6,8.9,12.0"
# Builds one encoder, and prints the figures that the builder reported.
_BUILD = """
import json, sys
from pathlib import Path
from samrt.engines.builder.engine import BuildOptions, build_engine
from samrt.engines.flavours import import_flavour
from samrt.engines.plugin import prepare_plugin
from samrt.engines.profiles import Range
from samrt.progress import SILENT

path, size, capabilities = Path(sys.argv[1]), int(sys.argv[2]), tuple(sys.argv[3].split(","))
flavour = import_flavour("tensorrt_rtx")
if "plugin" in path.name:
    prepare_plugin(flavour, capabilities, SILENT)
image = Range(*[(1, 3, size, size)] * 3)
built = build_engine(flavour, path, {"image": image}, BuildOptions(capabilities), SILENT)
has = [text in bytes(built.plan) for text in (b"SamrtRelPosAttention", b"kernels_version")]
print(json.dumps({**built.memory, "warnings": built.warnings, "has": has}))
"""
_COMMAND = "import sys, samrt.cli; sys.exit(samrt.cli.main())"
pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="session")
def plugin() -> Path:
    """libsamrt_plugin.so for every architecture, and beside it what TensorRT-RTX needs for it."""
    return device_build() / "libsamrt_plugin.so"


def run(arguments: Sequence[str], plugin: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", PLUGIN_VARIABLE: str(plugin), **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def encoder_memory(encoder: Path, size: int, plugin: Path) -> dict[str, Any]:
    done = run(["-c", _BUILD, str(encoder), str(size), CAPABILITIES], plugin)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show(capsys: pytest.CaptureFixture[str], model: str, scratch: dict[str, float]) -> None:
    """For the log of continuous integration: the figures are what the plugin is for."""
    with capsys.disabled():
        print(f"\n  {model} encoder, scratch memory: " + ", ".join(f"{k} {v / 1e6:.1f} MB" for k, v in scratch.items()))


def test_scratch_memory_of_vit_b(plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside its other forms, which take long to export, as benchmarks/attention_memory.py measured them."""
    loaded = load_state("vit_b", vit_state(RELEASED["vit_b"], decoder=RELEASED_DECODER))
    write_uncompared(tmp_path, loaded, "plugin")
    figures = encoder_memory(tmp_path / "image_encoder.fp16-plugin.onnx", 1024, plugin)
    results = json.loads((ROOT / "benchmarks" / "results" / "attention_memory.json").read_text())
    others = {form: 1e6 * mb for form, mb in results["scratch_mb"]["whole ViT-B at 1024"].items()}
    show(capsys, "ViT-B", {**others, "plugin": figures["scratch_bytes"]})
    assert figures["has"] == [True, True], "the plan names the plugin, and has the fields that it serialised"
    assert not figures["warnings"]
    # What is left is of the layers around the attention: half of `augmented`'s 116 MB.
    assert figures["scratch_bytes"] <= 60e6


def test_scratch_memory_of_the_default_model(
    plugin: Path, default_form: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    encoders = {"dense": samrt.default_bundle() / "image_encoder.fp16-dense.onnx"}
    for lowering in ("augmented", "plugin"):
        encoders[lowering] = default_form("fp16", lowering) / f"image_encoder.fp16-{lowering}.onnx"
    scratch = {form: encoder_memory(path, 512, plugin)["scratch_bytes"] for form, path in encoders.items()}
    show(capsys, "default model", scratch)
    assert scratch["plugin"] < scratch["augmented"] < scratch["dense"]


@pytest.fixture
def own_bundle(exported_plugin: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported_plugin, tmp_path / "bundle")


def command(bundle: Path, plugin: Path, capabilities: str = CAPABILITIES, **environment: str) -> tuple[int, str]:
    arguments = ["build", str(bundle), "--backend", "tensorrt_rtx", "--compute-capability", capabilities]
    done = run(["-c", _COMMAND, *arguments], plugin, **environment)
    return done.returncode, done.stderr


def test_the_command_builds_without_a_gpu(own_bundle: Path, plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = command(own_bundle, plugin)
    assert code == 0, said
    assert "kernels not tested" in said
    (found,) = find_engine_sets(own_bundle)
    assert isinstance(found, EngineSet)
    assert found.manifest.plugin == PLUGIN
    assert found.manifest.compute_capabilities == tuple(CAPABILITIES.split(","))
    assert (found.manifest.precision, found.manifest.lowering) == ("fp16", "plugin")
    memory = found.manifest.engines["image_encoder"].memory
    show(capsys, "small ViT", {"plugin": memory["scratch_bytes"]})
    assert memory["scratch_bytes"] <= 9.3e6  # what its augmented form takes


def refused(bundle: Path, plugin: Path, capabilities: str = CAPABILITIES, **environment: str) -> str:
    """What the command says: one line of an error after its progress, and no engine."""
    code, said = command(bundle, plugin, capabilities, **environment)
    assert code == 1, said
    assert said.splitlines()[-1].startswith("samrt: error: ")
    assert said.count("SamrtRelPosAttention '") == said.splitlines()[-1].count("SamrtRelPosAttention '")
    assert not find_engine_sets(bundle)
    return said.splitlines()[-1]


def test_a_missing_name_library_is_an_error_before_the_parser_ends_the_process(
    own_bundle: Path, plugin: Path, tmp_path: Path
) -> None:
    alone = shutil.copy(plugin, tmp_path)
    assert "libsamrt_rtx_name.so" in refused(own_bundle, Path(alone))


def test_a_version_that_was_not_tried_is_refused(own_bundle: Path, plugin: Path, tmp_path: Path) -> None:
    code = f"import tensorrt_rtx; tensorrt_rtx.__version__ = '1.9.0'; {_COMMAND}"
    done = run(["-c", code, "build", str(own_bundle), "--backend", "tensorrt_rtx"], plugin)
    assert done.returncode == 1
    assert f"was tried with TensorRT-RTX {', '.join(TRIED)}, not with 1.9.0" in done.stderr
    assert not find_engine_sets(own_bundle)


def test_turing_is_refused(own_bundle: Path, plugin: Path) -> None:
    assert "needs compute capability 8.0 or newer, and this is 7.5" in refused(own_bundle, plugin, "7.5,8.6")


def change_node(bundle: Path, name: str, value: int) -> None:
    """Another value of an attribute in every node of the plugin; the manifest follows."""
    path = bundle / "image_encoder.fp16-plugin.onnx"
    model = onnx.load(str(path), load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == PLUGIN_NAME and attribute.name == name:
                attribute.i = value
    onnx.save(model, str(path))
    rewrite_manifest(bundle)


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("head_dim", 72, "head_dim must be 64 or 80, not 72"),  # asked of the creator
        ("window_size", 7, "rel_pos_h is [9, 64]; its dimension 0 must be 13"),  # of getOutputShapes
        ("num_heads", 0, "0 heads"),
    ],
)
def test_what_the_plugin_refuses_is_said_in_its_words(
    own_bundle: Path, plugin: Path, attribute: str, value: int, reason: str
) -> None:
    change_node(own_bundle, attribute, value)
    said = refused(own_bundle, plugin)
    assert reason in said


def test_the_library_says_its_version(plugin: Path) -> None:
    code = "from samrt.engines.plugin import find_plugin; print(find_plugin().version)"
    assert run(["-c", code], plugin).stdout.split() == [str(KERNELS_VERSION)]


def test_a_wheel_in_an_empty_environment_is_all_it_takes(own_bundle: Path, plugin: Path, tmp_path: Path) -> None:
    """No compiler, no CUDA, no headers: the libraries of the wheel, and Python's packages."""
    machine = Machine(tmp_path / "machine")
    wheel = make_wheel(machine, BOTH, LIBRARIES=str(plugin.parent))
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, *install], check=True)

    def samrt_(*arguments: str) -> str:
        # Not the checkout's: this is a folder without samrt, and the wheel's comes first.
        environment = {"PATH": "", "PYTHONPATH": str(site), "HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", _COMMAND, *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    lines = [line for line in samrt_("doctor").splitlines() if str(site / "samrt" / "lib") in line]
    assert [line.split()[:3] for line in lines] == [["ok", "CUDA", "kernels"], ["ok", "TensorRT", "plugin"]]
    samrt_("build", str(own_bundle), "--compute-capability", CAPABILITIES)
    (found,) = find_engine_sets(own_bundle)
    assert isinstance(found, EngineSet)
    assert found.manifest.plugin == PLUGIN
