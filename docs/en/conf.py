# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The site, built by Sphinx: `bash .ci/docs.sh`.

Nothing is fetched while it is built or read: formulas are MathML, diagrams are pictures
beside the pages, and there are no links into the indices of other sites.
"""

from mmfakd.version import __version__

project = 'mmfakd'
author = 'mmfakd contributors'
project_copyright = 'mmfakd contributors. Apache-2.0'
version = release = __version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx_copybutton',
    'sphinx_design',
    '_ext.generated',
    '_ext.documents',
    '_ext.diagrams',
    '_ext.formulas',
    '_ext.short_texts',
]
exclude_patterns = ['_build', '_ext', 'results/logs', 'versions']

# Links to headings as hosting services of repositories write them.
myst_heading_anchors = 4
myst_enable_extensions = ['colon_fence', 'dollarmath']
suppress_warnings = ['myst.header']

# One backtick is code in docstrings.
default_role = 'code'
# What commands print has no language.
highlight_language = 'text'
autodoc_typehints = 'none'
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': True}
napoleon_custom_sections = ['Shapes']
python_use_unqualified_type_names = True
add_module_names = False

html_math_renderer = 'mathml'
html_theme = 'furo'
html_title = f'mmfakd {release}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    'navigation_with_keys': True,
    'top_of_page_buttons': [],
    'light_css_variables': {
        'color-brand-primary': '#0b6e6e',
        'color-brand-content': '#0b6e6e',
        'color-brand-visited': '#0b6e6e',
    },
    'dark_css_variables': {
        'color-brand-primary': '#4fc3c3',
        'color-brand-content': '#4fc3c3',
        'color-brand-visited': '#4fc3c3',
    },
}
copybutton_prompt_text = r'>>> |\.\.\. |\$ '
copybutton_prompt_is_regexp = True
