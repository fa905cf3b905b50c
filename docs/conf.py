"""How Sphinx builds these pages: ``make docs``.  Nothing is fetched from a network, neither here nor by a page."""

import rnnbench

project = "rnnbench"
author = "the authors of rnnbench"
release = version = rnnbench.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["examples"]  # sphinx-gallery makes auto_examples of it
highlight_language = "text"  # of a block that names no language
smartquotes = False  # --quick stays as it is typed

myst_heading_anchors = 3  # of the promises, which `rnnbench check` names

autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"(altair|collections|contextlib|numpy|pandas|pathlib|pd)\..*|dict\[.*"),  # their pages are elsewhere
    ("py:class", r"rnnbench\.\w+\.\w+\..*"),  # in signatures: types that are not public
]

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 3600,
    "write_computation_times": False,  # its page loads scripts from other servers
}

html_theme = "pydata_sphinx_theme"
html_title = "rnnbench"
html_show_sourcelink = False
html_sidebars = {"getting-started": []}  # it has no pages below it
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "navigation_with_keys": False,
}
copyright = "the authors of rnnbench, BSD-3-Clause"  # noqa: A001  # Sphinx's name


def is_field(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples: the signature has them, and Python's own docstrings say nothing."""
    return skip or type(obj).__name__ == "_tuplegetter"


def setup(app):
    app.connect("autodoc-skip-member", is_field)
