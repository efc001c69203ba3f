"""One version, one list of checks, and files that say the same everywhere."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import dgmm

ROOT = Path(__file__).parent.parent


def test_the_version_stands_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert dgmm.__version__ == project["version"] == citation["version"]
    assert citation["license"] == project["license"]


def test_hooks_and_workflows_call_checks_that_there_are() -> None:
    sessions = set(re.findall(r"^def (\w+)\(session: nox", (ROOT / "noxfile.py").read_text(), re.M))
    sessions -= {"run"}
    assert sessions == {"lint", "types", "docs", "tests", "image", "wheel", "coverage"}
    callers = [ROOT / ".pre-commit-config.yaml", *(ROOT / ".github/workflows").glob("*.yml")]
    called = [
        name
        for caller in callers
        for words in re.findall(r"nox --session ([\w ]+)", caller.read_text())
        for name in words.split()
    ]
    assert sessions == set(called)


def test_tests_run_on_each_python_that_is_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    assert set(promised) <= set(workflow["jobs"]["tests"]["strategy"]["matrix"]["python"])


LOADED = """
import json, sys
before = set(sys.modules)
try:
    {}
finally:
    print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)
"""

PACKAGES = {
    *("PIL", "aiohttp", "click", "cryptography", "dask", "dgmm", "distributed", "fsspec", "joblib"),
    *("matplotlib", "numcodecs", "numpy", "pandas", "prometheus_client", "psutil", "pyarrow"),
    *("rich", "s3fs", "scipy", "sklearn", "threadpoolctl", "tornado", "xarray", "zarr"),
}
"""What dgmm, or something it stands on, asks for."""

LIGHT = {"click", "dask", "dgmm", "fsspec", "numpy", "psutil", "rich", "scipy", "threadpoolctl"}
"""What a command is made of that does nothing: names of options, and the kernel's."""

HEAVY = {
    "dask.array",
    "scipy.cluster",
    "scipy.optimize",
    "scipy.spatial",
    "scipy.stats",
    "dgmm.data.dataset",
    "dgmm.engine",
    "dgmm.engine.plan",
}


@pytest.mark.parametrize(
    ("done", "roots"),
    [
        ("import dgmm", {"dgmm"}),
        ("from dgmm import DgmmError", {"dgmm"}),
        ("import dgmm.model.mixture", {"dgmm", "numpy", "scipy"}),
        *(
            (f"from dgmm.cli.commands import main; main({words.split()})", LIGHT)
            for words in ("fit", "fit --help")
        ),
        *(
            (f"from dgmm.cli.commands import main; main({words.split()})", {"click", "dgmm"})
            for words in ("--version", "--help", "nonsense")
        ),
    ],
)
def test_what_is_loaded_for_little(done: str, roots: set[str]) -> None:
    told = subprocess.run(
        [sys.executable, "-c", LOADED.format(done)], capture_output=True, text=True
    ).stderr
    loaded = json.loads(told.splitlines()[-1])
    assert PACKAGES & {name.partition(".")[0] for name in loaded} <= roots
    assert not set(loaded) & HEAVY


IN_MEMORY = """
import numpy
from dgmm import GaussianMixture
from dgmm.cli.commands import main
rows = numpy.arange(40.0).reshape(20, 2) % 7
numpy.save("rows.npy", rows)
GaussianMixture(2, random_state=0).fit(rows).predict_proba(rows)
main(["fit", "rows.npy", "-k", "2", "-o", "model.dgmm", "--quiet"])
"""


def test_rows_in_memory_or_in_a_plain_file_need_no_cluster_and_no_store(tmp_path: Path) -> None:
    """They take as long to import as scikit-learn does."""
    code = LOADED.format(IN_MEMORY.replace("\n", "\n    "))
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    loaded = json.loads(ended.stderr.splitlines()[-1])
    assert (tmp_path / "model.dgmm").exists(), ended.stderr
    needless = {"distributed", "tornado", "zarr", "dask.array", "prometheus_client", "matplotlib"}
    assert not needless.intersection(loaded)
