# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names on a page may be a stranger's: they are text, for browsers and terminals."""

from mmfakd.pictures.html_page import Section, html_page

NAME = '<script>a</script>"\x1b[2J'


def test_names_are_text_everywhere():
    section = Section(NAME, NAME, rows=[[NAME], [NAME]])
    page = html_page(NAME, NAME, [section])
    assert page.count(r'&lt;script&gt;a&lt;/script&gt;&quot;\x1b[2J') == 7
    assert '<script' not in page and '\x1b' not in page
