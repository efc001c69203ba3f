"""The package as its users get it: an sdist, a wheel of it, and that in an empty environment."""

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        "PYTEST_XDIST_WORKER" in os.environ, reason="to build the package, pytest -n 0 is needed"
    ),
]

FIT = """
import json, numpy, dgmm
from dgmm.kernels import native

rows = numpy.random.default_rng(0).normal(size=(2000, 3)) + 9 * (numpy.arange(2000) % 2)[:, None]
model = dgmm.GaussianMixture(2, random_state=0).fit(rows)
told = {"from": dgmm.__file__, "kernel": model.fit_info_["kernel"], "means": model.means_.tolist()}
print(json.dumps(told))
"""


def run(*words: object, path: str = os.environ["PATH"], cwd: Path = ROOT, code: int = 0) -> str:
    """What a command prints; it sees no other packages than its own environment's."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV", "DGMM_KERNEL")
    }
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stderr if code else done.stdout


@dataclass(frozen=True)
class Built:
    """An sdist, and the wheel that was built from it."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    place = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", place, ROOT)
    (sdist,), (wheel,) = place.glob("*.tar.gz"), place.glob("*.whl")
    return Built(sdist, wheel)


def test_the_sdist_has_all_sources(built: Built) -> None:
    with tarfile.open(built.sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    listed = run("git", "ls-files", "dgmm", "pyproject.toml", "README.md", "LICENSE").split()
    assert len(listed) > 50
    assert set(listed) <= names


def test_the_wheel_needs_no_compiler_and_is_fast(built: Built, tmp_path: Path) -> None:
    """All that the wheel asks for comes as wheels, too; its compiled kernel is there and fits."""
    place = tmp_path / "venv"
    run(sys.executable, "-m", "venv", place)
    own = str(place / "bin")  # and nothing else: no compiler
    python = place / "bin" / "python"
    run(python, "-m", "pip", "install", "--only-binary", ":all:", built.wheel, path=own)
    assert "native" in run(place / "bin" / "dgmm", "--version", path=own, cwd=tmp_path)
    told = run(place / "bin" / "dgmm", "demo", cwd=tmp_path, code=2)  # without the extra: plot
    assert "pip install 'dgmm[plot]'" in told
    found = json.loads(run(python, "-W", "error", "-c", FIT, cwd=tmp_path))  # joblib calls lscpu
    assert Path(found["from"]).is_relative_to(place)
    assert found["kernel"].startswith("native")
    assert sorted(round(mean[0]) for mean in found["means"]) == [0, 9]
