"""A site of a federated fit: it answers questions about its rows, which stay where they are.

**What leaves the site.**  At the start: how many rows it has, their weight, mean and scatter, which
features are constant, what these are called, and the weights, means and covariances of a mixture
that the site fits to its own rows.  Then, in each round, the sums of the rows under the mixture of
that round: for each component a weight, D sums and the sums of products, and one number for the
entropy (``SufficientStatistics``).  No row leaves the site, no least or largest value, and of an
error its kind alone.

**What that may tell.**  Sums over rows are no secrets.  A component that has the weight of one row
has that row for its mean; so whoever leads the fit learns a row by asking with a mixture that is
made for it.
"""

from collections.abc import Callable
from os import PathLike
from typing import Any, Final

import numpy as np
from distributed import Client

from dgmm import engine
from dgmm.data.dataset import Dataset
from dgmm.em.priors import parse_prior
from dgmm.errors import ModelFileError, UsageError
from dgmm.estimators import gaussian_mixture
from dgmm.estimators.gaussian_mixture import GaussianMixture
from dgmm.estimators.parameters import prior_of, threads_of
from dgmm.estimators.session import Data, open_rows
from dgmm.estimators.site_summary import Summary
from dgmm.io import storage
from dgmm.io.mailbox import Mailbox

QUESTION: Final = "dgmm-question"
"""The format of the first question; the others are models."""

ASKED: Final = ("covariance_type", "reg_covar", "missing", "init_params", "effort", "random_state")
"""The parameters of a site's own fit that who leads may set: none names a file or a machine."""


def first_question(model: GaussianMixture, components: int) -> dict[str, Any]:
    """What sites are asked at the start, as the header of a file: a fit of so many components."""
    params = {name: _plain(name, getattr(model, name)) for name in ASKED}
    return {"params": params, "n_components": components, "prior": prior_of(model).record()}


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
    client: Client | None = None,
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
    ...     site = threading.Thread(target=join, args=(rows, f"{place}/site", None, 60))
    ...     site.start()
    ...     model = federate(GaussianMixture(1), [f"{place}/site"], timeout=60)
    ...     site.join()
    >>> bool(np.allclose(model.means_, rows.mean(axis=0)))
    True
    """
    box, plain = Mailbox(str(mailbox)), GaussianMixture(n_jobs=n_jobs)
    dataset = open_rows(plain, X, {"weights": sample_weight}, reset=True)
    for number in box.questions(timeout):
        try:
            said = _answered(box, number, dataset, plain, client, meter or engine.Meter())
        except Exception as error:
            box.fail(number, error)
            raise
        if tell is not None:
            tell(said)
    return gaussian_mixture.load(box.end)


def _answered(
    box: Mailbox,
    number: int,
    dataset: Dataset,
    plain: GaussianMixture,
    client: Client | None,
    meter: engine.Meter,
) -> str:
    """Answer a question, and say how; ``plain`` has the threads to use."""
    asked, answer = box.at("question", number), box.at("answer", number)
    if number == 0:
        summary = _summary(asked, dataset, plain, client, meter)
        summary.save(answer)
        return f"the start: {summary.moments.rows:,} rows, and a mixture of their own"
    model = gaussian_mixture.load(asked)
    sweep = engine.over(dataset, client, threads_of(plain), meter)
    statistics = model.summarize(dataset, sweep=sweep)
    statistics.save(answer)
    return f"round {number}: the sums of {statistics.rows:,} rows"


def _summary(
    asked: str, dataset: Dataset, plain: GaussianMixture, client: Client | None, meter: engine.Meter
) -> Summary:
    """What the site says at the start: its first pass, and where a fit to its rows leads."""
    _, header = storage.read(asked, QUESTION)
    try:
        params = {name: header["params"][name] for name in ASKED}
        params["n_components"] = min(header["n_components"], dataset.rows)
        model = GaussianMixture(n_jobs=plain.n_jobs, prior=parse_prior(header["prior"]), **params)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{asked} asks nothing that can be answered: {error!r}") from error
    session = model.session(dataset, client=client)
    *_, last = session.passes(meter)
    return Summary.of(last.moments, last.mixture, session.names)
