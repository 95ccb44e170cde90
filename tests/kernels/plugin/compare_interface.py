"""Compares kernels/plugin/tensorrt_interface.h with TensorRT's own headers, as a compiler lays both out.

    python tests/kernels/plugin/compare_interface.py TENSORRT_INCLUDE CUDA_INCLUDE

The plugin and the stand-ins of fakes.h, which implement every interface, are compiled with both. Compared are the order
of their virtual functions, sizes, where members lie, the values of enumerators, and each interface's kind and version.
Needs g++. Prints what differs; the exit status is 1 if anything does.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OURS = '#include "plugin/tensorrt_interface.h"'
THEIRS = "#include <NvInferRuntime.h>\n#define SAMRT_TENSORRT_INTERFACE_H"

_INTERFACES = (
    *("IPluginV3", "IPluginV3OneCore", "IPluginV3OneBuild", "IPluginV3OneRuntime", "IPluginCreatorV3One"),
    "IErrorRecorder",
)
_MEMBERS = {
    "Dims": "nbDims d",
    "InterfaceInfo": "kind major minor",
    "PluginTensorDesc": "dims type format scale",
    "DynamicPluginTensorDesc": "desc min max opt",
    "DimsExprs": "nbDims d",
    "PluginField": "name data type length",
    "PluginFieldCollection": "nbFields fields",
}
_ENUMERATORS = {
    "DataType": "kFLOAT kHALF kBF16",
    "TensorFormat": "kLINEAR kCHW2",
    "ErrorCode": "kSUCCESS kINVALID_ARGUMENT",
    "DimensionOperation": "kSUM",
    "APILanguage": "kCPP",
    "PluginFieldType": "kFLOAT32 kINT32 kUNKNOWN",
    "PluginCapabilityType": "kCORE kBUILD kRUNTIME",
    "TensorRTPhase": "kBUILD kRUNTIME",
}


def _program() -> str:
    lines = [f'std::printf("sizeof {name} %zu\\n", sizeof({name}));' for name in _MEMBERS]
    for name, members in _MEMBERS.items():
        for each in members.split():
            lines.append(f'std::printf("{name}.{each} %zu\\n", offsetof({name}, {each}));')
            lines.append(f'std::printf("type of {name}.{each} %s\\n", typeid(decltype({name}::{each})).name());')
    for name, values in _ENUMERATORS.items():
        lines += [f'std::printf("{name}::{each} %d\\n", int({name}::{each}));' for each in values.split()]
    # By these names C++ tells types apart across libraries.
    lines += [f'std::printf("name of {name} %s\\n", typeid({name}).name());' for name in _INTERFACES]
    # Called on no object: these functions look at none.
    lines += [f'print("{name}", static_cast<{name}*>(none)->{name}::getInterfaceInfo());' for name in _INTERFACES]
    return "\n".join(
        (
            "#include <cstddef>\n#include <cstdio>\n#include <typeinfo>\nusing namespace nvinfer1;",
            "static void print(const char* name, InterfaceInfo info) {",
            '  std::printf("%s is %s,%d.%d\\n", name, info.kind, info.major, info.minor); }',
            "int main() { static void* memory[8]; void* none = memory;",
            *lines,
            "}",
        )
    )


def describe(header: str, folders: list[str]) -> dict[str, str]:
    """Every fact by its name."""
    includes = [f"-I{each}" for each in (ROOT / "kernels", ROOT / "tests" / "kernels" / "plugin", *folders)]
    with tempfile.TemporaryDirectory() as folder:

        def compile_(text: str, *options: str) -> None:
            Path(folder, "facts.cpp").write_text(f"{header}\n{text}\n")
            command = ["g++", "-std=c++17", "-w", *includes, *options, "facts.cpp"]
            subprocess.run(command, cwd=folder, check=True)

        compile_('#include "plugin/attention_creator.cpp"\n#include "fakes.h"', "-c", "-fdump-lang-class")
        tables = _tables(next(Path(folder).glob("*.class")).read_text())
        compile_(_program(), "-o", "facts")
        said = subprocess.run([Path(folder, "facts")], capture_output=True, text=True, check=True).stdout
    return tables | dict(
        line.rsplit(" ", 1)
        for line in said.replace("PLUGIN CREATOR", "PLUGIN_CREATOR").replace("6Dims64", "4Dims").splitlines()
    )


def _tables(dump: str) -> dict[str, str]:
    """The virtual functions of the plugin's and the stand-ins' classes, in their order."""
    ours = "samrt::AttentionPlugin", "AttentionCreator", "ErrorRecorder", "ResourceContext", "Dimension", "ExprBuilder"
    tables = {}
    for block in re.split(r"\n\n+", dump):
        found = re.match(r"Vtable for (\S+)\n", block)
        if found and found[1].endswith(ours) and "nvinfer1" not in found[1]:
            tables[f"functions of {found[1]}"] = " ".join(re.findall(r"::(~?\w+)$", block, re.MULTILINE))
    assert len(tables) == len(ours), f"g++ wrote the tables of {', '.join(tables)} only"
    return tables


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tensorrt", metavar="TENSORRT_INCLUDE", help="folder of NvInferRuntime.h")
    parser.add_argument("cuda", metavar="CUDA_INCLUDE", help="folder of cuda_runtime_api.h, which it includes")
    arguments = parser.parse_args()
    ours, theirs = (
        describe(OURS, []),
        describe(THEIRS, [str(Path(each).resolve()) for each in (arguments.tensorrt, arguments.cuda)]),
    )
    different = [name for name in ours if ours[name] != theirs.get(name)]
    for name in different:
        print(f"{name}: {ours[name]} here, {theirs.get(name)} there")
    print(f"{len(ours)} facts compared, {len(different)} differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
