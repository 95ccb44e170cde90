"""What pyproject.toml cannot say: which packages there are, and that `pip install .` compiles the CUDA kernels where it
can (kernels/build.py).
"""

import os
import sys
from pathlib import Path

from setuptools import Command, Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "kernels"))

from build import LIBRARIES, NotBuiltError, build_requirements  # noqa: E402
from build import build as build_libraries  # noqa: E402

INSTALLED = Path("samrt", "lib")


class BuildKernels(Command):
    """A step of `build`: the libraries and their note into samrt/lib, of the wheel or, editable, of the checkout."""

    user_options = []  # noqa: RUF012 - setuptools' own form

    def initialize_options(self) -> None:
        self.build_lib = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        architectures = os.environ.get("SAMRT_CUDA_ARCHITECTURES", "")
        if self.editable_mode and architectures == "none" and LIBRARIES.exists():
            return  # another environment's build of the same checkout
        try:
            build_libraries(self._target(), architectures)
        except NotBuiltError as error:
            sys.exit(f"error: {error}")

    def get_source_files(self) -> list[str]:
        return []  # MANIFEST.in has them

    def get_outputs(self) -> list[str]:
        return [str(path) for path in self._target().glob("*")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def _target(self) -> Path:
        return LIBRARIES if self.editable_mode else Path(self.build_lib) / INSTALLED


class BuildWithKernels(build):
    sub_commands = [*build.sub_commands, ("build_kernels", None)]  # noqa: RUF012


class KernelDistribution(Distribution):
    """Its wheel is for one platform where a library was compiled, and for any where none was."""

    has_libraries = False

    def has_ext_modules(self) -> bool:
        return self.has_libraries or super().has_ext_modules()


class KernelWheel(bdist_wheel):
    def run(self) -> None:
        self.run_command("build")
        libraries = Path(self.get_finalized_command("build").build_lib) / INSTALLED
        self.distribution.has_libraries = any(libraries.glob("*.so"))
        self.root_is_pure = not self.distribution.has_libraries
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        # Loaded with ctypes: no matter which Python.
        return ("py3", "none", platform) if self.distribution.has_libraries else (python, abi, platform)


def packages() -> list[str]:
    """Every folder with an `__init__.py` in samrt/ and in export/, which is installed as samrt_export."""
    found = find_packages(str(ROOT), include=("samrt", "samrt.*", "export", "export.*"))
    return [f"samrt_{name}" if name.startswith("export") else name for name in found]


setup(
    packages=packages(),
    distclass=KernelDistribution,
    cmdclass={"build": BuildWithKernels, "build_kernels": BuildKernels, "bdist_wheel": KernelWheel},
    setup_requires=build_requirements(),
)
