"""A site of a federated fit: it answers questions about its rows, which stay where they are.

**What leaves the site.**  At the start: how many rows it has, their weight, mean and scatter, which
features are constant, or have one value in most rows, what features are called, and the weights,
means and covariances of a mixture that the site fits to its own rows.  Then, in each round, the
sums of the rows under the mixture of that round: for each component a weight, D sums and the sums
of products, and one number for the entropy (``SufficientStatistics``).  No row leaves the site, no
least or largest value, and of an error its kind alone.

**What that may tell.**  Sums over rows are no secrets.  A component that has the weight of one row
has that row for its mean; so whoever leads the fit learns a row by asking with a mixture that is
made for it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dgmm import engine
from dgmm.data.dataset import Dataset
from dgmm.em.priors import parse_prior
from dgmm.errors import ModelFileError, UsageError
from dgmm.estimators import gaussian_mixture, private
from dgmm.estimators.fits import session_of
from dgmm.estimators.gaussian_mixture import GaussianMixture
from dgmm.estimators.parameters import prior_of, spec_of, threads_of
from dgmm.estimators.rows import Data, open_rows
from dgmm.estimators.site_summary import Summary
from dgmm.estimators.sufficient_statistics import SufficientStatistics
from dgmm.inference.privacy import Privacy
from dgmm.io import storage
from dgmm.io.mailbox import Mailbox
from dgmm.kernels import choice
from dgmm.kernels.sweep import Sweep
from dgmm.model.covariance import COVARIANCE_MODELS
from dgmm.model.frame import Frame
from dgmm.model.mixture import Mixture
from dgmm.model.prior import Regularised

if TYPE_CHECKING:
    from distributed import Client

FULL: Final = COVARIANCE_MODELS["full"]

QUESTION: Final = "dgmm-question"
"""The format of the first question; the others are models."""

ASKED: Final = ("covariance_type", "reg_covar", "missing", "init_params", "effort", "random_state")
"""The parameters of a site's own fit that who leads may set: none names a file or a machine."""


def first_question(model: GaussianMixture, components: int, frame: Frame | None) -> dict[str, Any]:
    """What sites are asked at the start, as the header of a file: a fit of so many components.

    The ``frame`` is that of the start, where one is given: private sums are taken in it.
    """
    params = {name: _plain(name, getattr(model, name)) for name in ASKED}
    seen = None if frame is None else {"shift": frame.shift.tolist(), "scale": frame.scale.tolist()}
    prior = prior_of(model).record()
    return {"params": params, "n_components": components, "prior": prior, "frame": seen}


def _plain(name: str, value: Any) -> Any:
    """A parameter as a file has it."""
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is not None and not isinstance(plain, str | int | float):
        raise UsageError(
            f"sites are told {name}: it must be a number, a text or None, not {value!r:.80}"
        )
    return plain


def join(
    X: Data,
    mailbox: str | PathLike[str],
    sample_weight: Data = None,
    timeout: float = 3600.0,
    privacy: Privacy | None = None,
    client: "Client | None" = None,
    n_jobs: int | None = None,
    meter: engine.Meter | None = None,
    tell: Callable[[str], None] | None = None,
) -> GaussianMixture:
    """Be a site of a federated fit: answer what ``federate`` asks about rows, which stay here.

    It returns when the fit is at its end.  Started again, it goes on from the first question that
    has no answer.

    Parameters
    ----------
    X : rows (N, D)
        Array-like, Dask or Zarr array, path, URL, ``Dataset``, or a lazy frame.
    mailbox : str or PathLike
        A directory, at a path or URL, that this site alone has with who leads the fit.
    sample_weight : (N,), optional
        Weights of the rows, in the same forms, or one for all; by default each counts as one.
    timeout : float, default=3600
        How many seconds to wait for the next question.
    privacy : Privacy, optional
        Add noise that hides any one row to all answers, of which there are no more than its
        ``rounds``.  Who leads the fit must give a start.  Started again, give what is left of
        the rounds.
    client : distributed.Client, optional
        The cluster to use; by default the active one, else this process.
    n_jobs : int, optional
        How many threads of this process to use; by default, or for -1, one for each processor.
    meter : Meter, optional
        Counts the rows swept.
    tell : callable, optional
        Is told of each answer, in a sentence.

    Returns
    -------
    GaussianMixture
        The model that was fitted to the rows of all sites.

    Raises
    ------
    UsageError, DataError
        If the rows can't be used, or nothing is asked in time.  Who leads the fit is told of what
        kind the error is, and nothing else.

    See Also
    --------
    dgmm.federate : Leads the fit.

    Examples
    --------
    >>> import threading, tempfile, numpy as np
    >>> from dgmm import GaussianMixture, federate, join
    >>> rows = np.random.default_rng(0).normal(size=(200, 2))
    >>> with tempfile.TemporaryDirectory() as place:
    ...     site = threading.Thread(target=join, args=(rows, f"{place}/site", None, 300))
    ...     site.start()
    ...     model = federate(GaussianMixture(1), [f"{place}/site"], timeout=300)
    ...     site.join()
    >>> bool(np.allclose(model.means_, rows.mean(axis=0)))
    True
    """
    box, plain = Mailbox(str(mailbox)), GaussianMixture(n_jobs=n_jobs)
    dataset = open_rows(plain, X, {"weights": sample_weight}, reset=True)
    own = Site(dataset, plain, privacy, client, meter or engine.Meter())
    left = math.inf if privacy is None else privacy.rounds
    for number in box.questions(timeout):
        try:
            if left == 0:
                raise UsageError(f"the {privacy} of this site has no more rounds to answer")
            left -= 1
            said = own.answer(box, number)
        except Exception as error:
            box.fail(number, error)
            raise
        if tell is not None:
            tell(said)
    return gaussian_mixture.load(box.end)


@dataclass(frozen=True)
class Site:
    """What answers questions.

    Attributes
    ----------
    dataset : Dataset
    plain : GaussianMixture
        Has the threads to use, and the names of the features.
    privacy : Privacy or None
    client : Client or None
    meter : Meter
    """

    dataset: Dataset
    plain: GaussianMixture
    privacy: Privacy | None
    client: "Client | None"
    meter: engine.Meter

    def answer(self, box: Mailbox, number: int) -> str:
        """Answer a question, and say how."""
        asked, answer = box.at("question", number), box.at("answer", number)
        if number == 0:
            summary = self._summary(asked)
            summary.save(answer)
            return f"the start: {summary.moments.rows:,} rows, and a mixture of their own"
        model = gaussian_mixture.load(asked)
        statistics = model.summarize(self.dataset, sweep=self._sweep, privacy=self.privacy)
        statistics.save(answer)
        return f"round {number}: the sums of {statistics.rows:,} rows"

    @property
    def _sweep(self) -> Sweep:
        return engine.over(self.dataset, self.client, threads_of(self.plain), self.meter)

    def _summary(self, asked: str) -> Summary:
        """What the site says at the start: its first pass, and where a fit to its rows leads."""
        _, header = storage.read(asked, QUESTION)
        try:
            params = {name: header["params"][name] for name in ASKED}
            params["n_components"] = min(header["n_components"], self.dataset.rows)
            prior, threads = parse_prior(header["prior"]), self.plain.n_jobs
            model = GaussianMixture(n_jobs=threads, prior=prior, **params)
            frame = header["frame"] and _frame_of(header["frame"], self.dataset.n_features)
        except (KeyError, TypeError, ValueError) as error:
            told = f"{asked} asks nothing that can be answered: {error!r}"
            raise ModelFileError(told) from error
        names = vars(self.plain).get("feature_names_in_")
        if self.privacy is not None:
            return self._private_summary(model, frame, self.privacy, names)
        session = session_of(model, self.dataset, client=self.client)
        *_, last = session.passes(self.meter)
        return Summary.of(last.moments, last.mixture, names)

    def _private_summary(
        self, model: GaussianMixture, frame: Frame | None, privacy: Privacy, names: Any
    ) -> Summary:
        """The same of sums with noise: those under one component, and no fit to the rows."""
        if frame is None:
            raise UsageError(
                "privacy goes by a frame that owes nothing to the rows: have who leads the fit "
                "give a start (dgmm federate --start)"
            )
        n_features = self.dataset.n_features
        private.check_private(model.missing, False, self.dataset.weights is not None)
        width, none = FULL.centred_features.width(n_features), np.zeros(n_features)
        around = Mixture.of_covariances(
            FULL, np.ones(1), frame.shift[None], np.diag(frame.scale**2)[None]
        )
        asked = SufficientStatistics(
            *("", FULL, frame, Regularised(none), None, np.zeros((1, width)), none[None]),
            *(0.0, 1.0, 1),
        )
        radius, kernel = privacy.radius(n_features), choice.chosen()
        exact = asked.summarize(self._sweep, around, kernel, radius=radius)
        pairs = spec_of(model).first_pass_spec(*self.dataset.layout).pairs
        hidden = private.hidden(exact, frame.enter(around), privacy)
        return Summary.of_statistics(hidden, pairs, names)


def _frame_of(told: dict[str, Any], n_features: int) -> Frame:
    """The frame that a question has; raises ``ValueError`` if it is none of so many features."""
    shift, scale = (np.array(told[name], dtype=np.float64) for name in ("shift", "scale"))
    finite = np.isfinite(shift).all() and np.isfinite(scale).all()
    if not (shift.shape == scale.shape == (n_features,) and finite and scale.min() > 0):
        raise ValueError(f"a frame of {n_features} features can't be {told!r:.80}")
    return Frame(shift, scale)
