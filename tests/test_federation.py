"""Fits over sites that do not share rows: against a fit to all rows, and against sites that lie."""

import io
import shutil
import signal
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import dask.array as da
import fsspec
import numpy as np
import pandas
import processes
import pytest
from click.testing import CliRunner
from distributed import Client
from sklearn.exceptions import ConvergenceWarning

from dgmm import (
    DataError,
    GaussianMixture,
    Privacy,
    SufficientStatistics,
    UsageError,
    engine,
    federate,
    join,
    load,
)
from dgmm.cli.commands import main
from dgmm.em.conjugate_prior import ConjugatePrior
from dgmm.estimators import private
from dgmm.inference.privacy import LENGTH
from dgmm.io.mailbox import Mailbox

PARTS = ("weights", "means", "precisions")
CENTRES = np.array([[0.0, 0], [4, 1], [-2, 5]])


def drawn(rows: int, kinds: list[int], seed: int) -> np.ndarray:
    """Of few of the components, in units and places that differ."""
    rng = np.random.default_rng(seed)
    return (CENTRES[rng.choice(kinds, rows)] + rng.normal(size=(rows, 2))) * [1, 40] + [10, 1e4]


ROWS = {
    "north": drawn(400, [0, 1], 1),
    "south": drawn(150, [1, 2], 2),
    "west": drawn(500, [0, 1, 2], 3),
}


def led(place: str, model: GaussianMixture, sites: Mapping[str, np.ndarray]) -> GaussianMixture:
    """The ``model``, fitted to the rows of ``sites``: each answers from a thread of its own."""
    boxes = [f"{place}/{name}" for name in sites]
    args = zip(sites.values(), boxes, strict=True)
    threads = [threading.Thread(target=join, args=(*each, None, 60), daemon=True) for each in args]
    for each in threads:
        each.start()
    federate(model, boxes, timeout=60)
    for each in threads:
        each.join()
    return model


@pytest.mark.parametrize(
    ("where", "params"),
    [
        ("here", {}),
        ("bucket", {"strategy": "em", "tol": 1e-6, "covariance_type": "tied"}),
        ("here", {"prior": ConjugatePrior()}),
        ("here", {"covariance_type": "diag", "missing": "marginalize"}),
    ],
)
def test_it_is_the_fit_to_all_rows_from_the_same_start(
    tmp_path: Path, where: str, params: dict[str, object]
) -> None:
    place = str(tmp_path) if where == "here" else f"memory://{uuid4().hex}"
    sites = {name: rows.copy() for name, rows in ROWS.items()}
    if "missing" in params:
        sites["south"][::3, 1] = sites["south"][0] = np.nan  # and of one row all
    model = led(place, GaussianMixture(3, random_state=0, **params), sites)
    start = load(f"{place}/north/question-0001.dgmm")
    begin = {f"{name}_init": getattr(start, f"{name}_") for name in PARTS}
    whole = GaussianMixture(3, precision="float64", **begin, **params).fit(
        np.concatenate(list(sites.values()))
    )
    assert (model.n_iter_, model.converged_) == (whole.n_iter_, True)
    assert model.lower_bound_ == pytest.approx(whole.lower_bound_, abs=1e-9)
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(model, name), getattr(whole, name), rtol=1e-9)
    # And the start leads where a fit to all rows goes by itself.
    free = GaussianMixture(3, random_state=0, **params).fit(np.concatenate(list(sites.values())))
    assert model.lower_bound_ > free.lower_bound_ - free.fit_info_["resolution"]
    assert load(f"{place}/west/fitted.dgmm").means_.tolist() == model.means_.tolist()


@pytest.mark.filterwarnings("ignore::dgmm.errors.DegenerateWarning")  # of the rows of one value
def test_a_few_rows_far_away_do_not_make_reg_covar(tmp_path: Path) -> None:
    """As in one place it goes by most rows; but not where most have one value."""
    rng = np.random.default_rng(5)
    sites = {name: np.column_stack([rows, rows[:, 1]]) for name, rows in ROWS.items()}
    for rows in sites.values():
        rows[-3:, :2] += 1e5 * rng.normal(size=(3, 2))
        rows[: len(rows) * 9 // 10, 2] = 7.0
    del sites["west"]
    model = led(str(tmp_path), GaussianMixture(4, effort="low", random_state=0), sites)
    pooled = GaussianMixture(4, effort="low", random_state=0).fit(np.concatenate([*sites.values()]))
    own, whole = (np.array(each.fit_info_["reg_covar"]) for each in (model, pooled))
    np.testing.assert_allclose(own, whole, rtol=0.3)  # of all rows it is 10,000 times as much
    np.testing.assert_allclose(own[2], whole[2], rtol=1e-9)


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mailboxes of a fit that is done."""
    place = tmp_path_factory.mktemp("rounds")
    led(str(place), GaussianMixture(3, random_state=0), ROWS)
    return place


def again(rounds: Path, place: Path) -> list[Path]:
    """A copy of the mailboxes, as if whoever led the fit had crashed before its end."""
    boxes = [Path(shutil.copytree(rounds / name, place / name)) for name in ROWS]
    for each in boxes:
        (each / "fitted.dgmm").unlink()
    return boxes


def test_no_value_of_a_row_leaves_a_site(rounds: Path) -> None:
    for name, rows in ROWS.items():
        answers = sorted((rounds / name).glob("answer-*"))
        assert len(answers) > 3
        for each in answers:
            with np.load(each, allow_pickle=False) as file:
                for array in file.values():
                    assert array.size < rows.size / 4
                    assert array.dtype.kind == "U" or not np.isin(array, rows).any()


def test_it_goes_on_from_what_the_mailboxes_hold(rounds: Path, tmp_path: Path) -> None:
    boxes = again(rounds, tmp_path)
    model = federate(GaussianMixture(3, random_state=0), boxes, timeout=1)  # no site is there
    done = (rounds / "north" / "fitted.dgmm").read_bytes()
    assert (boxes[0] / "fitted.dgmm").read_bytes() == done
    assert model.fit_info_["rows"] == sum(map(len, ROWS.values()))
    with pytest.raises(DataError, match="holds the rounds of another fit"):
        federate(GaussianMixture(2, random_state=0), boxes, timeout=1)


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ("west/answer-0002", "west/answer-0003", "statistics under another model"),
        ("north/answer-0001", "west/answer-0001", "not of the 500 rows"),
        (None, "west/answer-0001", "no answer to question 1 in 0.1 s"),
    ],
)
def test_a_site_that_lies_is_refused_by_name(
    rounds: Path, tmp_path: Path, source: str | None, target: str, told: str
) -> None:
    boxes = again(rounds, tmp_path)
    if source is None:
        (tmp_path / f"{target}.dgmm").unlink()
    else:
        shutil.copy(tmp_path / f"{source}.dgmm", tmp_path / f"{target}.dgmm")
    with pytest.raises(DataError, match=told) as error:
        federate(GaussianMixture(3, random_state=0), boxes, timeout=0.1)
    assert "west" in str(error.value).split("/")[-1]


def test_a_site_that_comes_twice_is_refused_by_name(tmp_path: Path) -> None:
    sites = {**ROWS, "again": ROWS["south"]}
    boxes = [tmp_path / name for name in sites]
    with pytest.raises(UsageError, match="a mailbox of its own"):
        federate(GaussianMixture(3), [boxes[0], boxes[0]])
    args = zip(sites.values(), boxes, strict=True)
    threads = [threading.Thread(target=quietly, args=each) for each in args]
    for each in threads:
        each.start()
    with pytest.raises(DataError, match=r"again is refused: it has the statistics of \S*south"):
        federate(GaussianMixture(3, random_state=0), boxes, timeout=60)
    for each in threads:
        each.join()


def quietly(rows: np.ndarray, box: Path) -> None:
    """A site that waits for no more questions than come soon, or till the fit is refused."""
    with pytest.raises(DataError, match=r"nothing was asked|ended it \(DataError\)"):
        join(rows, box, timeout=2)


def test_a_site_that_fails_is_named_and_its_rows_are_not(tmp_path: Path) -> None:
    wrong = ROWS["west"].copy()
    wrong[7, 1] = np.nan
    sites = {"north": ROWS["north"], "west": wrong}
    failed = []

    def failing() -> None:
        with pytest.raises(DataError, match="row 7"):
            join(wrong, tmp_path / "west", timeout=60)
        failed.append(True)

    threads = [
        threading.Thread(target=quietly, args=(sites["north"], tmp_path / "north")),
        threading.Thread(target=failing),
    ]
    for each in threads:
        each.start()
    boxes = [tmp_path / name for name in sites]
    model = GaussianMixture(2, random_state=0)
    with pytest.raises(DataError, match=r"west failed at question 0 \(\w+Error\)"):
        federate(model, boxes, timeout=60)
    for each in threads:
        each.join()
    assert failed
    assert not hasattr(model, "mixture_")
    # Mended, both go on.
    mended = threading.Thread(target=join, args=(ROWS["west"], boxes[1], None, 60))
    other = threading.Thread(target=join, args=(ROWS["north"], boxes[0], None, 60))
    mended.start()
    other.start()
    while (boxes[1] / "failed-0000.dgmm").exists():
        mended.join(0.02)
    assert federate(model, boxes, timeout=60).converged_
    mended.join()
    other.join()


@pytest.mark.parametrize(
    "params",
    [
        {"noise_component": True},
        {"tails": "student"},
        {"covariance_type": "factor", "n_factors": 1},
        {"means_init": np.zeros((3, 2))},
        {"checkpoint": "somewhere"},
        {"prior": "variational"},
    ],
)
def test_what_sums_can_t_tell_is_refused_at_the_door(params: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="no federated fit"):
        federate(GaussianMixture(3, **params), ["memory://nowhere"], timeout=1)


def test_a_statistics_file_has_the_same_bits_whatever_the_workers(
    rounds: Path, tmp_path: Path, clusters: Mapping[int, Client]
) -> None:
    model = load(rounds / "north" / "question-0002.dgmm")
    rows = da.from_array(ROWS["west"], chunks=(60, 2))
    with clusters[2].as_current():
        model.summarize(rows).save(tmp_path / "cluster.stats")
    for threads in (1, 3):
        model.set_params(n_jobs=threads).summarize(rows).save(tmp_path / f"{threads}.stats")
    files = [each.read_bytes() for each in tmp_path.glob("*.stats")]
    assert len(files) == 3
    assert len(set(files)) == 1


def run(*words: object) -> str:
    done = CliRunner().invoke(main, list(map(str, words)), env={"COLUMNS": "200"})
    assert isinstance(done.exception, SystemExit | None), done.exception
    return done.output


def test_the_commands_take_a_round_by_hand(rounds: Path, tmp_path: Path) -> None:
    bucket = f"memory://{uuid4().hex}"
    for name, rows in ROWS.items():
        np.save(tmp_path / f"{name}.npy", rows)
    asked = rounds / "north" / "question-0001.dgmm"
    files = [f"{bucket}/{name}.stats" for name in ROWS]
    for name, each in zip(ROWS, files, strict=True):
        run("summarize", tmp_path / f"{name}.npy", "-m", asked, "-o", each, "--quiet")
    told = [word for each in files for word in ("--statistics", each)]
    after = tmp_path / "after.dgmm"
    run("update", *told, "-m", asked, "-o", after)
    hand, whole = load(after), load(asked)
    whole.update(whole.summarize(np.concatenate(list(ROWS.values()))))
    np.testing.assert_allclose(hand.means_, whole.means_, rtol=1e-9)
    np.testing.assert_allclose(hand.covariances_, whole.covariances_, rtol=1e-9)
    # The rounds of the mailboxes are the same ones.
    own = SufficientStatistics.load(rounds / "north" / "answer-0001.dgmm")
    assert np.array_equal(own.sums, SufficientStatistics.load(files[0]).sums)
    for words, wrong in (
        ([*told, *told[:2]], "given twice"),
        ([], "give either DATA or --statistics"),
        (
            [*told, "--statistics", rounds / "west" / "answer-0002.dgmm"],
            "answer-0002.dgmm is refused",
        ),
        (
            [*told, "--statistics", rounds / "west" / "answer-0001.dgmm"],
            f"statistics of {files[2]}",
        ),
    ):
        assert wrong in run("update", *words, "-m", asked, "-o", tmp_path / "no.dgmm")
    assert not (tmp_path / "no.dgmm").exists()


def test_the_commands_lead_and_join(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS["north"])
    box, out = tmp_path / "box", tmp_path / "model.dgmm"
    said: list[str] = []
    site = threading.Thread(
        target=lambda: said.append(
            str(join(tmp_path / "rows.npy", box, timeout=60, tell=said.append).means_.tolist())
        )
    )
    site.start()
    output = run("federate", box, "-k", "2", "-o", out, "--timeout", "60")
    site.join()
    assert "round 1: 400 rows, objective" in output
    assert said[0] == "the start: 400 rows, and a mixture of their own"
    assert said[-1] == str(load(out).means_.tolist())
    (box / "fitted.dgmm").unlink()
    output = run("federate", box, "-k", "2", "-o", out, "--overwrite", "--json", "--quiet")
    assert '"rows": 400' in output
    shown = run("join", tmp_path / "rows.npy", box)  # it is over: there is nothing to answer
    assert str(box) in shown
    with fsspec.open(str(box / "question-0000.dgmm"), "rb") as file:
        asked = np.load(io.BytesIO(file.read()), allow_pickle=False)
    assert asked.files == ["header"]


def test_a_start_for_other_features_is_refused(tmp_path: Path) -> None:
    """Sites say what theirs are called, and are told; the start is a file, or a model."""
    rows = pandas.DataFrame(ROWS["north"], columns=["lat", "lon"])
    start = GaussianMixture(2, random_state=0, warm_start=True).fit(rows[["lon", "lat"]])
    start.save(tmp_path / "start.dgmm")
    box, ended = tmp_path / "north", []

    def refused() -> None:
        with pytest.raises(DataError, match=r"ended it \(UsageError\)"):  # and nothing of why
            join(rows, box, timeout=60)
        ended.append(True)

    site = threading.Thread(target=refused)
    site.start()
    told = "the start is a model of the features lon, lat; the rows have lat, lon"
    with pytest.raises(UsageError, match=told):
        federate(start, [box], timeout=60)
    site.join()
    assert ended
    words = ["federate", str(box), "-k", "2", "-o", str(tmp_path / "x.dgmm"), "--start"]
    done = CliRunner().invoke(main, [*words, str(tmp_path / "start.dgmm")])
    assert done.exit_code == 2
    assert told in done.output


def test_a_signal_ends_it_and_it_goes_on(tmp_path: Path) -> None:
    """Who leads, in the middle of its rounds, and a site that waits: both end with 4."""
    np.save(tmp_path / "rows.npy", ROWS["north"])
    box, go_on = tmp_path / "box", threading.Event()
    rounds = ["-k", "2", "--strategy", "em", "--tol", "0", "--max-iter", "4", "-o", "model.dgmm"]
    rounds += ["--effort", "low"]

    def slow(text: str) -> None:
        if text.startswith("round 2"):
            go_on.wait(60)

    site = threading.Thread(target=join, args=(ROWS["north"], box, None, 60), kwargs={"tell": slow})
    site.start()
    with processes.start("federate", "box", *rounds, cwd=tmp_path) as process:
        while not process.stderr.readline().startswith("round 2"):
            assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        told = process.stderr.read()
    assert process.returncode == 4
    assert "the same command continues where it stopped" in told
    assert not (tmp_path / "model.dgmm").exists()
    answered = {each: each.stat().st_mtime_ns for each in box.glob("answer-*")}
    assert len(answered) == 3
    go_on.set()
    with processes.start("federate", "box", *rounds, cwd=tmp_path) as process:
        process.stderr.read()
    site.join()
    assert process.returncode == 0
    assert load(tmp_path / "model.dgmm").n_iter_ == 4
    assert {each: each.stat().st_mtime_ns for each in answered} == answered
    words = [
        "federate",
        str(tmp_path / "other"),
        *rounds[:8],
        "--effort",
        "low",
        "-o",
        str(tmp_path / "no.dgmm"),
    ]
    late = CliRunner().invoke(main, [*words, "--timeout", "0.1"])
    assert late.exit_code == 4
    assert "no answer to question 0" in late.output
    with processes.start("join", "rows.npy", "other", cwd=tmp_path) as process:
        assert process.stderr.readline().startswith("answered the start")
        process.send_signal(signal.SIGINT)
        assert "the same command continues" in process.stderr.read()
    assert process.returncode == 4


@pytest.fixture(scope="module")
def model() -> GaussianMixture:
    """Fitted to rows that anyone may see."""
    return GaussianMixture(3, random_state=0).fit(drawn(300, [0, 1, 2], 4))


def test_a_row_makes_no_more_of_the_sums_than_the_noise_goes_by(model: GaussianMixture) -> None:
    """By itself, wherever it lies: in the units that the noise has."""
    own, radius = model.sufficient_statistics_, Privacy(1, 1e-6).radius(2)
    features = own.covariance_model.centred_features
    units = np.repeat([1.0, radius, radius**2], [1, 2, 3])
    rows = np.random.default_rng(0).normal(size=(40, 2)) * np.exp(np.linspace(0, 300, 40))[:, None]
    lengths = []
    for row in np.concatenate([rows * [1, 40] + [10, 1e4], ROWS["west"][:40]]):
        sweep = engine.in_memory_sweep(row[None])
        found = own.summarize(sweep, model.mixture_, "numpy", radius=radius)
        sums = features.shifted(found.sums, -found.center) / units
        lengths.append(np.hypot(np.linalg.norm(sums), found.entropy / np.log(3)))
    assert max(lengths) < LENGTH
    assert max(lengths) > 0.6 * LENGTH  # and the bound is no waste


def test_noise_is_what_privacy_says(model: GaussianMixture) -> None:
    """Of 200 answers, in each number; and of the number of rows nothing else is told."""
    rows = drawn(20_000, [0, 1, 2], 5)
    privacy = Privacy(2.0, 1e-6)
    wide = Privacy(2.0, 1e-6, clip=1e3)
    exact = model.summarize(rows)
    features, radius = exact.covariance_model.centred_features, privacy.radius(2)
    noise = LENGTH * privacy.noise_multiplier * np.repeat([1.0, radius, radius**2], [1, 2, 3])
    inside = exact.summarize(engine.in_memory_sweep(rows), model.mixture_, "numpy", radius=radius)
    about_0 = features.shifted(inside.sums, -inside.center)
    off = []
    for seed in range(200):
        drawn_sums = private.hidden(
            inside, exact.frame.enter(model.mixture_), replace(privacy, random_state=seed)
        )
        off.append((features.shifted(drawn_sums.sums, -drawn_sums.center) - about_0) / noise)
    spread = np.std(off, axis=0)
    assert np.abs(np.mean(off, axis=0)).max() < 4.5 / np.sqrt(200)
    assert np.abs(spread - 1).max() < 4.5 / np.sqrt(400)
    assert np.abs(np.corrcoef(np.reshape(off, (200, -1)).T) - np.eye(18)).max() < 0.35
    one, other = (model.summarize(rows, privacy=privacy) for _ in range(2))
    assert not np.array_equal(one.sums, other.sums)
    assert one.rows == round(one.weight)
    assert model.summarize(rows, privacy=wide).bound(model.mixture_) != exact.bound(model.mixture_)


@pytest.mark.parametrize(
    ("epsilon", "delta", "rounds", "multiplier"),
    # What Google's dp-accounting 0.6.0 has for these, by its privacy loss distributions.
    [(1.0, 1e-6, 10, 13.359608), (0.5, 1e-5, 1, 7.031827), (4.0, 1e-8, 25, 6.977914)],
)
def test_privacy_is_accounted_for(
    epsilon: float, delta: float, rounds: int, multiplier: float
) -> None:
    z = Privacy(epsilon, delta, rounds).noise_multiplier
    assert z == pytest.approx(multiplier, abs=1e-6)
    # And by its definition: of two normal densities, one moved by mu.
    mu = np.sqrt(rounds) / z
    x = np.linspace(-15, 15, 200_001)
    here, there = (np.exp(-0.5 * (x - each) ** 2) / np.sqrt(2 * np.pi) for each in (mu, 0))
    more = np.trapezoid(np.maximum(here - np.exp(epsilon) * there, 0), x)
    assert more == pytest.approx(delta, rel=1e-3)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_private_rounds_get_near_at_a_price(kind: str) -> None:
    """The less private, the nearer to the fit to all rows: from a start that all may see."""
    public, rows = drawn(60, [0, 1, 2], 6), drawn(30_000, [0, 1, 2], 7)
    best = GaussianMixture(3, covariance_type=kind, random_state=0).fit(rows)
    lost = []
    for epsilon in (0.02, 20.0):
        model = GaussianMixture(3, covariance_type=kind, random_state=0).fit(public)
        start = model.score(rows)
        for seed in range(4):
            privacy = Privacy(epsilon, 1e-6, rounds=4, random_state=seed, clip=6)
            model.update({"one": model.summarize(rows, privacy=privacy)})
        lost.append((best.lower_bound_ - model.score(rows)) / (best.lower_bound_ - start))
    assert lost[1] < 0.5
    assert lost[1] < lost[0]


def test_there_may_be_ten_thousand_questions(tmp_path: Path) -> None:
    mailbox = Mailbox(str(tmp_path))
    for number in (9999, 10000):
        Path(mailbox.at("question", number)).touch()
    questions = mailbox.questions(timeout=1)
    assert [next(questions), next(questions)] == [9999, 10000]


def test_privacy_that_can_not_be_is_refused(model: GaussianMixture) -> None:
    for wrong in ({"epsilon": 0}, {"delta": 1}, {"rounds": 0}, {"clip": -1}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            Privacy(**{"epsilon": 1.0, "delta": 1e-6, **wrong})
    with pytest.raises(UsageError, match="more noise than there can be"):
        Privacy(1e-9, 1e-12)
    with pytest.raises(UsageError, match="count 1 each"):
        model.summarize(ROWS["west"], np.ones(500), privacy=Privacy(1, 1e-6))


def test_a_private_site_tells_nothing_without_noise(model: GaussianMixture, tmp_path: Path) -> None:
    """From a start that all may see; and no more often than it said."""
    rows = {"north": drawn(9000, [0, 1], 8), "south": drawn(9000, [1, 2], 9)}
    boxes = [tmp_path / name for name in rows]
    told: list[str] = []

    def at_site(name: str) -> None:
        private = Privacy(10.0, 1e-6, rounds=4, clip=6, random_state=len(name))
        with pytest.raises(UsageError, match=r"rounds=4.*no more rounds"):
            join(rows[name], tmp_path / name, timeout=60, privacy=private)
        told.append(name)

    threads = [threading.Thread(target=at_site, args=(name,), daemon=True) for name in rows]
    for each in threads:
        each.start()
    start = {f"{part}_init": getattr(model, f"{part}_") for part in PARTS}
    em = {"strategy": "em", "tol": 0}
    with pytest.raises(DataError, match=r"failed at question 4 \(UsageError\)"):
        federate(GaussianMixture(3, max_iter=9, **em, **start), boxes, timeout=60)
    for each in threads:
        each.join()
    assert sorted(told) == list(rows)
    # What there is of it is a fit.
    with pytest.warns(ConvergenceWarning):
        led = federate(GaussianMixture(3, max_iter=2, **em, **start), boxes, timeout=60)
    whole = np.concatenate(list(rows.values()))
    assert led.score(whole) > model.score(whole)
    assert led.fit_info_["weight"] != 18_000
