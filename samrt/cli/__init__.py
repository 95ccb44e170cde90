"""The `samrt` command. Each command is a module here with `add_arguments(parser)` and `run(arguments) -> exit code`.

Only the module of the command that was asked for is imported, and it imports what is heavy when it runs, so that
`samrt --help` answers at once and `samrt doctor` works where a package is broken.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from samrt.cli.memory import out_of_memory
from samrt.cli.parser import Parser
from samrt.cli.remedies import in_flags
from samrt.cli.streams import discard, open_missing, settle, tell
from samrt.errors import SamrtError

_COMMANDS = {
    "segment": "predict masks for points, boxes or a painted mask on an image",
    "info": "show the content of a bundle and check its files",
    "eval": "measure the accuracy of a bundle's masks on annotated images; compare two bundles",
    "doctor": "show what works on this machine, and how to fix or install what does not",
    "export": "convert a checkpoint to a bundle and compare it with torch (needs torch: the export extra)",
    "build": "build TensorRT engines from a bundle (needs TensorRT or TensorRT-RTX)",
}

_DESCRIPTION = "Segment Anything without torch: convert checkpoints to bundles, and predict masks for prompts."

_EPILOG = """\
segment one object with the model that comes with samrt:
  samrt segment photo.jpg --point 420,310

use a checkpoint of your own:
  samrt export sam_vit_b_01ec64.pth -o vit_b
  samrt segment photo.jpg --bundle vit_b --point 420,310
  samrt info vit_b

`samrt COMMAND --help` explains a command and shows examples.

exit status: 0 done, 1 error (one line on stderr says what went wrong), 2 wrong usage, 130 interrupted.
Set SAMRT_DEBUG=1 to see the traceback of an error.
"""

_ERROR, _INTERRUPTED = 1, 130
# What a shell reports of a program that a closed pipe ended: 128 + SIGPIPE.
_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after the program's name; those of the process when None.

    Returns:
        The exit status: 0 done, 1 an error of samrt (one line on stderr), 130 interrupted, 141 the reader of stdout
        went away.

    Raises:
        SystemExit: 2 for wrong usage; 0 after --help and --version.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    open_missing()
    if not sys.warnoptions:
        # What Pillow finds odd about a picture; an error says what matters.
        warnings.filterwarnings("ignore", module="PIL")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not be valid text, nor fit the terminal's encoding; stderr escapes them the same way.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            arguments = _parser(words).parse_args(words)
            status: int = arguments.run(arguments)
        except SystemExit:
            sys.stdout.flush()  # what --help and --version printed
            raise
        # Here, where a closed pipe is caught.
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        discard(sys.stdout)
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        settle(sys.stdout)
        tell("samrt: interrupted")
        return _INTERRUPTED
    except Exception as error:
        said = _said(error)
        if said is None:
            raise
        settle(sys.stdout)
        if os.environ.get("SAMRT_DEBUG"):
            for line in traceback.format_exc().rstrip().split("\n"):
                tell(line)
        tell(f"samrt: error: {said}")
        return _ERROR


def _said(error: Exception) -> str | None:
    """An error in one line; None if it is none that a user can do something about."""
    exhausted = out_of_memory(error)
    if exhausted is not None:
        if isinstance(error, SamrtError) and error.remedy is not None:
            return f"out of memory: {in_flags(error.reason)}"
        return f"out of memory: {exhausted}; free memory, or use a smaller image or model, or fewer prompts"
    if isinstance(error, SamrtError):
        return in_flags(error.reason)
    if not isinstance(error, OSError):
        return None
    # What samrt reads and writes has errors of its own, so one without a file's name is of stdout.
    said = f"cannot write to stdout: {error.strerror or error}; check the free space where it goes"
    return said if error.filename is None else str(error)


def _parser(words: list[str]) -> argparse.ArgumentParser:
    parser = Parser(prog="samrt", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show samrt's version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    # No option before the command takes a value, so the first other word is the command.
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, allow_abbrev=False)
        if name == chosen:
            module = importlib.import_module(f"samrt.cli.{name}")
            command.description = module.DESCRIPTION
            command.epilog = module.EPILOG
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        # Late, because looking up a package's metadata takes longer than all other parsing.
        from samrt import __version__

        print(f"samrt {__version__}")
        parser.exit()
