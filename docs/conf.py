"""How Sphinx makes the documentation's site: `python -m tools.docs`.

The source folder is the root of the checkout, so that links between pages, CHANGELOG.md, examples and source files are
the same on the site and in the checkout.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import ltrobust  # noqa: E402 - it is found in the checkout

project = "ltrobust"
author = "The ltrobust authors"
release = version = ltrobust.__version__

root_doc = "docs/index"
include_patterns = ["docs/**", "CHANGELOG.md", "CONTRIBUTING.md", "examples/*.ipynb"]
extensions = [
    # Markdown and notebooks.
    "myst_nb",
    "sphinx.ext.autodoc",
    # Docstrings have Google's sections: Args, Returns, Raises, Attributes.
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    # docs/site_parts.py: formulas without a network, and pages of source files.
    "site_parts",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
myst_enable_extensions = ["dollarmath"]
# Links may name a heading of another page, as they do on a code host.
myst_heading_anchors = 4
# Notebooks are shown as they are committed; `python -m tools.docs --notebooks` runs them.
nb_execution_mode = "off"
nb_execution_timeout = 1200
nb_execution_raise_on_error = True

# Markdown's `code` in docstrings.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_custom_sections = [("Arguments of every attack", "params_style")]
# Unions of types are shown by their names.
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = "ltrobust"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
# The address without a page leads to the start page.
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]
# Prompts are not copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
