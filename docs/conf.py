"""How the documents become a site: ``nox -s docs``.

The build runs the scripts of pictures/ (a gallery) and the Python of all pages that have pictures,
and warns if a page shows what does not happen.
"""

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parent))

import drawing
import links

project, author = "dgmm", "the developers of dgmm"
release = version = version_of("dgmm")
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "pictures", "reference/generated"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = "dgmm"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {"code-font-size": "0.78em"},
}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
autodoc_default_options = {"members": True, "inherited-members": "object"}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
linkcheck_ignore = [r"http://localhost"]
sphinx_gallery_conf = {
    "examples_dirs": "pictures",
    "gallery_dirs": "gallery",
    "filename_pattern": "/",
    "within_subsection_order": "FileNameSortKey",
    "doc_module": ("dgmm",),
    "backreferences_dir": "gallery/uses",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "capture_repr": (),
    "show_signature": False,
    "reset_modules": ("matplotlib", "drawing.quiet"),
    "min_reported_time": 60,
    "write_computation_times": False,
    "thumbnail_size": (400, 280),
    "image_srcset": ["2x"],
}

OTHERS = re.compile(r"set_\w+_request|get_metadata_routing")
"""Methods of scikit-learn's base classes that lead to its own documents."""


def draw(app: Sphinx) -> None:
    """Draw what pages show."""
    drawing.MADE.mkdir(exist_ok=True)
    drawing.draw_first_page()
    for untruth in drawing.draw_pages():
        logging.getLogger(__name__).warning(untruth)


def without_last_line(app: Sphinx, name: str, source: list[str]) -> None:
    """Leave out the empty line that ends output for doctest, at the end of a block."""
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


def setup(app: Sphinx) -> None:
    """Draw pictures, leave methods out that are explained elsewhere, and check links at the end."""
    app.connect("source-read", without_last_line)
    app.connect("builder-inited", draw)
    app.connect("build-finished", links.check)
    app.connect(
        "autodoc-skip-member",
        lambda app, what, name, value, skip, options: bool(OTHERS.fullmatch(name)) or None,
    )
