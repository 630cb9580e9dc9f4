"""Links and pictures of the pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
LINK = re.compile(r"\]\((?!https?://|#)([^)\s#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_exist(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_there_are_links() -> None:
    assert LINK.findall("[a](b/c.md) ![d](e.png) [f](https://g.h) [i](#j)") == ["b/c.md", "e.png"]
    assert ROOT / "README.md" in PAGES
