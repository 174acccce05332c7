"""``ecgnat completion``: what makes a shell complete commands, options and names; argcomplete does the work.

The script asks this program at every press of the tab key, so that it knows the models and devices that are installed.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

__all__ = ["add", "answer_the_shell", "asked_by_the_shell", "conditions", "models"]

_SHELLS = ("bash", "zsh", "fish")


def add(commands: Any) -> None:
    """Add ``ecgnat completion`` to the parser."""
    parser = commands.add_parser(
        "completion",
        help="print what makes a shell complete this command",
        description="Print a script after which the tab key completes commands, options, models and conditions.",
        epilog="""examples:
  eval "$(ecgnat completion bash)"              for this shell; in ~/.bashrc for all
  eval "$(ecgnat completion zsh)"               the same in ~/.zshrc, behind compinit
  ecgnat completion fish > ~/.config/fish/completions/ecgnat.fish""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=_SHELLS)
    parser.set_defaults(command=_completion)


def _completion(arguments: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["ecgnat"], shell=arguments.shell))
    return 0


def asked_by_the_shell() -> bool:
    """Return whether a shell waits for proposals, not a person for a command."""
    return "_ARGCOMPLETE" in os.environ


def answer_the_shell(parser: argparse.ArgumentParser) -> None:
    """Print the proposals and exit."""
    from argcomplete.finders import CompletionFinder

    CompletionFinder()(parser)


def models(**_: Any) -> list[str]:
    """Return the names of models, for the tab key."""
    from ecgnat_stream.weights import installed

    return sorted(installed())


def conditions(**_: Any) -> list[str]:
    """Return the names of conditions, for the tab key."""
    from ecgnat_stream.alarm import PHYSIOLOGICAL, TECHNICAL

    return [*PHYSIOLOGICAL, *TECHNICAL]
