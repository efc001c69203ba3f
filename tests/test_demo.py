"""The demonstration, run once as its user would, and the drawing functions it uses."""

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import processes
import pytest
import zarr
from matplotlib.image import imread
from PIL import Image
from sklearn.datasets import load_sample_image
from sklearn.mixture import GaussianMixture as Reference

import dgmm
from dgmm.cli import demo
from dgmm.cli.demo import PHOTOGRAPHS, PICTURE, Files
from dgmm.errors import DataError
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.mixture import Mixture
from dgmm.report import pictures as report

ROOT = Path(__file__).parent.parent
ROWS = 427 * 640
RUN = """
import sys
from dgmm.cli.demo import run

for line in run(sys.argv[1]):
    print(line)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The directory a run leaves, and its lines; a process of its own, so memory is its own.

    It runs once, for all processes that share the tests: the first of them makes it.
    """
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    directory, told = place / "demo" / "new" / "place", place / "demo.txt"
    with (place / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            command = [sys.executable, "-P", "-W", "error", "-c", RUN, str(directory)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
            told.write_text(done.stdout)
    return directory, told.read_text().splitlines()


def test_leaves_its_files_and_no_others(finished: tuple[Path, list[str]]) -> None:
    directory, lines = finished
    files = [Files.of(photograph, directory) for photograph in PHOTOGRAPHS]
    made = {path for each in files for path in (each.rows, each.model, each.labels)}
    assert set(directory.iterdir()) == made | {directory / PICTURE}
    assert {Path(line.rpartition(": ")[2]) for line in lines} == set(directory.iterdir())


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda p: p.name)
def test_lines_tell_what_happened(
    finished: tuple[Path, list[str]], photograph: demo.Photograph
) -> None:
    directory, lines = finished
    files = Files.of(photograph, directory)
    stored, fitted, labelled = (x for x in lines if x.startswith(f"{photograph.name}: "))
    model = dgmm.load(files.model)
    blocks = dgmm.open_dataset(files.rows, block_bytes=1).blocks
    assert f"{ROWS:,} rows" in stored
    assert f"in {blocks} chunks" in stored
    assert f"{model.n_components} components to {blocks} blocks" in fitted
    assert f"converged in {model.fit_info_['passes']} passes" in fitted
    assert f"score {model.score(files.rows):.4f}" in fitted
    assert f"in {blocks} chunks" in labelled
    planned = re.search(r"up to ([\d.]+) MiB of 1.00 GiB", fitted)
    assert planned is not None
    assert float(planned[1]) < 1024
    assert model.converged_
    assert model.memory == demo.MEMORY


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda p: p.name)
def test_labels_are_scikit_learns(
    finished: tuple[Path, list[str]], photograph: demo.Photograph
) -> None:
    files = Files.of(photograph, finished[0])
    model = dgmm.load(files.model)
    reference = Reference(model.n_components)
    reference.weights_, reference.means_ = model.weights_, model.means_
    reference.covariances_ = model.covariances_
    reference.precisions_cholesky_ = model.precisions_cholesky_
    rows = np.asarray(zarr.open_array(files.rows, mode="r")[:], dtype=np.float64)
    labels = zarr.open_array(files.labels, mode="r")
    assert labels.chunks[0] == zarr.open_array(files.rows, mode="r").chunks[0]
    np.testing.assert_array_equal(labels[:], reference.predict(rows))


AGAIN = """
import sys
import dgmm
from dgmm.cli import demo
demo.fit(dgmm.open_dataset(sys.argv[1], block_bytes=1)).save(sys.argv[2])
"""


def test_another_process_finds_the_same_mixture(
    finished: tuple[Path, list[str]], tmp_path: Path
) -> None:
    files = Files.of(PHOTOGRAPHS[1], finished[0])
    with processes.start(files.rows, "again.dgmm", cwd=tmp_path, script=AGAIN) as process:
        assert process.wait() == 0
    first, again = (dgmm.load(each) for each in (files.model, tmp_path / "again.dgmm"))
    for part in ("weights_", "means_", "covariances_"):
        np.testing.assert_array_equal(getattr(again, part), getattr(first, part))


def test_picture_shows_photographs_and_segments_pixel_by_pixel(
    finished: tuple[Path, list[str]],
) -> None:
    directory, _ = finished
    drawn = imread(directory / PICTURE)[..., :3]
    top, left = demo.HEAD, demo.MARGIN
    for photograph in PHOTOGRAPHS:
        image = load_sample_image(f"{photograph.name}.jpg") / 255
        height, width, _ = image.shape
        files = Files.of(photograph, directory)
        model = dgmm.load(files.model)
        labels = zarr.open_array(files.labels, mode="r")[:].reshape(height, width)
        segments = demo.srgb(model.means_[:, :3])[labels]
        for number, expected in enumerate((image, segments)):
            start = left + number * (width + demo.GAP)
            shown = drawn[top : top + height, start : start + width]
            np.testing.assert_allclose(shown, expected, atol=1 / 255)  # PNG keeps bytes
        top += height + demo.FOOT
    plane = drawn[demo.HEAD :, left + 2 * (width + demo.GAP) :]
    assert len(np.unique(plane.reshape(-1, 3), axis=0)) > 1000


def test_refuses_an_earlier_runs_files_at_once(tmp_path: Path) -> None:
    kept = Files.of(PHOTOGRAPHS[1], tmp_path).model
    kept.write_text("precious")
    with pytest.raises(DataError, match=r"flower\.dgmm exists"):
        demo.run(tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


def test_overwriting_removes_only_its_own_files(tmp_path: Path) -> None:
    files = Files.of(PHOTOGRAPHS[0], tmp_path)
    files.rows.mkdir()
    (files.rows / "zarr.json").write_text("{}")
    files.model.write_text("")
    (tmp_path / "notes.txt").write_text("mine")
    demo.run(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_refuses_what_can_be_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be made"):
        demo.run(tmp_path / "file")


def test_lab_of_known_colours() -> None:
    # Lindbloom's CIE colour calculator, sRGB, D65; its digits are the tolerance.
    colours = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]])
    known = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(demo.lab(colours)[:3], known, atol=0.006)
    np.testing.assert_allclose(demo.lab(colours)[3:], [[100, 0, 0], [0, 0, 0]], atol=1e-12)


def test_histogram_counts_every_pixel(finished: tuple[Path, list[str]]) -> None:
    for photograph in PHOTOGRAPHS:
        assert demo.histogram(Files.of(photograph, finished[0]).rows).sum() == ROWS


def test_srgb_undoes_lab() -> None:
    # Its two pieces are joined to 7 digits, at 0.04045 / 12.92 = 0.00313080.
    colours = np.random.default_rng(0).random((1000, 3)) ** 3  # dark ones too, which are linear
    np.testing.assert_allclose(demo.srgb(demo.lab(colours)), colours, atol=1e-6)


def test_ellipses_follow_eigenvectors() -> None:
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    upper = np.eye(3)
    upper[np.ix_([2, 0], [2, 0])] = turn @ np.diag([9.0, 4.0]) @ turn.T
    covariances = np.array([upper, 0.25 * np.eye(3)])
    mixture = Mixture.of(
        COVARIANCE_MODELS["full"],
        np.array([0.3, 0.7]),
        np.array([[1.0, 2, 3], [4, 5, 6]]),
        np.linalg.inv(covariances),
    )
    axes = report.panel(report.canvas(300, 300), 10, 10, 280, 280)
    drawn = report.ellipses(axes, mixture, (2, 0), ["red", "blue"], levels=(1, 2.5))
    assert [e.get_center().tolist() for e in drawn] == [[3, 1], [3, 1], [6, 4], [6, 4]]
    np.testing.assert_allclose([drawn[0].width, drawn[0].height], [6, 4])
    np.testing.assert_allclose([drawn[1].width, drawn[1].height], [15, 10])
    np.testing.assert_allclose(drawn[0].angle % 180, 30)
    assert axes.get_xlim()[0] < 3 - 7.5 * np.cos(angle)  # all in sight


@pytest.mark.parametrize("name", list(COVARIANCE_MODELS))
def test_ellipses_are_where_densities_are_equal(name: str, blobs: np.ndarray) -> None:
    model = dgmm.GaussianMixture(4, covariance_type=name, random_state=0).fit(blobs)
    axes = report.panel(report.canvas(300, 300), 0, 0, 300, 300)
    drawn = report.ellipses(axes, model.mixture_, (0, 2), ["k"] * 4, levels=(1.5,))
    dense = model.mixture_.covariances.dense()
    for k, outline in enumerate(drawn):
        path = outline.get_path().vertices[::3]  # matplotlib's ends of arcs, on the unit circle
        points = outline.get_patch_transform().transform(path)
        apart = points - model.means_[k, [0, 2]]
        inverse = np.linalg.inv(dense[k][np.ix_([0, 2], [0, 2])])
        distances = np.sqrt(np.einsum("ni,ij,nj->n", apart, inverse, apart))
        np.testing.assert_allclose(distances, 1.5, rtol=1e-6)


def test_density_shades_counts() -> None:
    axes = report.panel(report.canvas(300, 300), 0, 0, 300, 300)
    counts = np.array([[0.0, 1], [10, 1000], [0, 0]])
    mesh = report.density(axes, counts, np.arange(4.0), np.arange(3.0))
    np.testing.assert_array_equal(mesh.get_array().filled(0).reshape(2, 3), counts.T)
    assert (mesh.norm.vmin, mesh.norm.vmax) == (1, 1000)


def test_palette_is_as_wide_as_the_weights() -> None:
    axes = report.panel(report.canvas(300, 300), 0, 0, 300, 300)
    colours = np.array([[1.0, 1, 1], [0, 0, 0], [0, 0, 1]])
    report.palette(axes, np.array([0.5, 0.2, 0.3]), colours)
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, [0.2, 0.3, 0.5])  # black, blue, white
    np.testing.assert_allclose([bar.get_x() for bar in axes.patches], [0, 0.2, 0.5])


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        figure = report.canvas(320, 200)
        report.write(figure, 20, 40, "title", 9, weight="bold")
        report.picture(report.panel(figure, 20, 60, 100, 100), np.zeros((10, 10, 3)))
        report.save(figure, tmp_path / name)
    one, two = (tmp_path / name for name in ("one.png", "two.png"))
    assert imread(one).shape[:2] == (200, 320)
    assert one.read_bytes() == two.read_bytes()


def test_the_picture_of_the_readme_is_what_the_demonstration_draws(
    finished: tuple[Path, list[str]],
) -> None:
    """But for what another processor's last bits may change, and for size and packing."""
    shown, drawn = (
        np.asarray(Image.open(path).convert("RGB").resize((300, 186)), dtype=float)
        for path in (ROOT / "docs" / "demo.jpg", finished[0] / PICTURE)
    )
    assert abs(shown - drawn).mean() < 4
