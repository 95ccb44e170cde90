"""What `make docs` does not check: every public name and page has a place, and links to other files lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import samrt
import samrt.evaluation

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def test_every_public_name_is_on_an_api_page() -> None:
    shown = {
        line.split(".")[-1] for page in PAGES for line in page.read_text("utf-8").splitlines() if line[:4] == "::: "
    }
    assert "errors" in shown  # the whole module
    public = {*samrt.__all__, *samrt.evaluation.__all__} - {"__version__", *vars(samrt.errors)}
    assert sorted(public - shown) == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert [name for page in PAGES if f": {(name := page.relative_to(DOCS).as_posix())}\n" not in navigation] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_in_docs(page: Path) -> None:
    """The site is built from docs/ alone: what lies elsewhere in the repository is named, not linked."""
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    targets = [(page.parent / link).resolve() for link in links]
    assert [str(target) for target in targets if not (target.is_relative_to(DOCS) and target.is_file())] == []
