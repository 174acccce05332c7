"""The script that ``ecgnat completion`` prints, in a real shell, and what it proposes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ecgnat_stream.cli import main

pytest.importorskip("argcomplete", reason="argcomplete, which the package depends on, is not in this environment")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["completion", shell])
    script = capsys.readouterr().out
    assert "ecgnat" in script
    if found := shutil.which(shell):
        subprocess.run([found, "-n"], input=script, text=True, check=True, timeout=30)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "proposed", "not_proposed"),
    [
        ("ecgnat dem", {"demo "}, {"doctor "}),
        ("ecgnat replay --mod", {"--model", "--mode"}, set()),
        ("ecgnat replay --model", {"--model "}, set()),
        ("ecgnat demo --model ecgnat-nano", {"ecgnat-nano", "ecgnat-nano-causal"}, {"beatnet"}),
        ("ecgnat command pause --condition ventricular-f", {"ventricular-fibrillation "}, set()),
        ("ecgnat demo --log-level ", {"debug", "info", "warning", "error"}, set()),
    ],
)
def test_bash_completes_what_is_typed(line: str, proposed: set[str], not_proposed: set[str], tmp_path: Path) -> None:
    program = tmp_path / "ecgnat"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ecgnat_stream.cli "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    script = f"""
eval "$(ecgnat completion bash)"
COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9
read -ra COMP_WORDS <<< "$COMP_LINE"; [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_python_argcomplete ecgnat
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    bash = ["bash", "--noprofile", "--norc", "-c", script]
    found = set(subprocess.run(bash, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines())
    assert proposed <= found
    assert not not_proposed & found
