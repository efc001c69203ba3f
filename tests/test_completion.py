"""Shells complete commands, options, choices and names of files, as the guide says."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs/guide/command-line.md").read_text()
SHELLS = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
}
BEFORE = {"bash": [], "zsh": ["autoload -Uz compinit && compinit -D -u"]}
"""What their users have in their settings anyway."""
DGMM = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT)!r})
from dgmm.cli.commands import main
sys.argv[0] = "dgmm"
sys.exit(main())
"""


def completed(shell: str, lines: list[str], cwd: Path) -> str:
    """What a terminal shows, in which lines are typed to a shell until the last says ``bye``."""
    ours, theirs = pty.openpty()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
        **{"PATH": f"{cwd}/bin:{os.environ['PATH']}", "TERM": "dumb", "HOME": str(cwd)},
    }
    with subprocess.Popen(
        SHELLS[shell],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        os.write(ours, "".join(lines).encode())
        shown, ends = b"", time.monotonic() + 60
        while not re.search(rb"^bye", shown, re.MULTILINE) and time.monotonic() < ends:
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 4096)
        process.kill()
    os.close(ours)
    return shown.decode().replace("\r", "")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with rows, and with a command."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dgmm").write_text(DGMM)
    (tmp_path / "bin/dgmm").chmod(0o755)
    (tmp_path / "rows.npy").touch()
    return tmp_path


def line_for(shell: str) -> str:
    """What the guide has users write; skips if there is no such shell."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (line,) = re.findall(rf"^\| {shell} \|.*\| `(.*)` \|$", GUIDE, re.MULTILINE)
    return line.replace(r"\|", "|")  # as it stands in a table


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_complete_what_is_typed(shell: str, place: Path) -> None:
    line = line_for(shell)
    # Tab completes; then Ctrl-A, and what makes a command of the whole line that says it.
    lines = [
        *(f"{each}\n" for each in BEFORE[shell]),
        f"{line}\n",
        "dgmm predict --kind pr\t\x01echo first \n",
        "dgmm fit ro\t\x01echo second \n",
        "echo bye\n",
    ]
    shown = completed(shell, lines, place)
    assert re.search(r"^first dgmm predict --kind proba", shown, re.MULTILINE), shown
    assert re.search(r"^second dgmm fit rows.npy", shown, re.MULTILINE), shown


def test_fish_completes_what_is_typed(place: Path) -> None:
    asked = "; ".join(
        [line_for("fish"), "complete -C 'dgmm predict --kind pr'", "complete -C 'dgmm fit ro'"]
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", asked],
        cwd=place,
        env={**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}", "HOME": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [each.partition("\t")[0] for each in done.stdout.splitlines()] == ["proba", "rows.npy"]


def test_the_module_is_the_command(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dgmm", "fit"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Missing argument 'DATA'" in done.stderr
