"""docs/conventions.md names a test for each convention; the tests it names must exist."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_tests_named_by_the_conventions_exist():
    page = (HERE.parent / 'docs' / 'conventions.md').read_text(encoding='utf-8')
    names = re.findall(r'`(test_\w+\.py)::(test_\w+)`', page)
    assert len(names) > 30
    for file, test in names:
        assert f'\ndef {test}(' in (HERE / file).read_text(encoding='utf-8'), f'{file}::{test}'
