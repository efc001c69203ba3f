"""How the documents become a site: ``nox -s docs``."""

import re
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np
from sphinx.application import Sphinx

from dgmm import GaussianMixture
from dgmm.report import pictures

project, author = "dgmm", "the developers of dgmm"
release = version = version_of("dgmm")
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "dgmm"
html_static_path = ["_static"]
html_show_copyright = False
myst_heading_anchors = 3
numpydoc_show_class_members = False
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "inherited-members": "object"}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

STATIC = Path(__file__).parent / "_static"
STATIC.mkdir(exist_ok=True)

OTHERS = re.compile(r"set_\w+_request|get_metadata_routing")
"""Methods of scikit-learn's base classes that lead to its own documents."""


def first_picture() -> None:
    """Draw the picture of the first page."""
    random = np.random.default_rng(4)
    kinds = random.integers(0, 4, size=200_000)
    shapes = random.normal(scale=0.7, size=(4, 2, 2)) + np.eye(2)
    centres = np.array([[-3.0, 0], [3, 1], [0, 4], [1, -4]])
    rows = centres[kinds] + np.einsum("nij,nj->ni", shapes[kinds], random.normal(size=(200_000, 2)))
    model = GaussianMixture(4, random_state=0).fit(rows)
    figure = pictures.canvas(720, 480)
    axes = pictures.panel(figure, 50, 20, 650, 420)
    pictures.density(axes, *np.histogram2d(*rows.T, bins=240))
    pictures.ellipses(axes, model.mixture_, (0, 1), ["C0", "C1", "C2", "C3"])
    pictures.save(figure, STATIC / "first.png")


def setup(app: Sphinx) -> None:
    """Draw the picture, and leave methods out that are explained elsewhere."""
    app.connect("builder-inited", lambda app: first_picture())
    app.connect(
        "autodoc-skip-member",
        lambda app, what, name, value, skip, options: bool(OTHERS.fullmatch(name)) or None,
    )
