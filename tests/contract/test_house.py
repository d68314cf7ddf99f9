"""Rules about the tree itself: file lengths, forbidden names and words, one-deep derivation."""

import ast
import re
from pathlib import Path

import pytest

from headwater.api import catalogue

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "headwater"
FILES = sorted(SOURCE.rglob("*.py"))
METHODS = [p for p in FILES if SOURCE / "methods" in p.parents and p.name != "__init__.py"]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def method_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headwater.methods"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", METHODS, ids=named)
def test_a_method_imports_at_most_one_other_which_imports_none(path: Path) -> None:
    bases = method_imports(path)
    assert len(bases) <= 1
    for base in bases:
        assert not method_imports(SOURCE.parent / (base.replace(".", "/") + ".py"))


@pytest.mark.parametrize("path", METHODS, ids=named)
def test_methods_know_no_device_rank_optimiser_or_trainer(path: Path) -> None:
    if path.parent.name in ("assess", "continual"):
        return  # estimators hand plain numbers and arrays back, which is a host's business
    for word in (".cuda(", ".item(", "dist.", "trainer", "epoch", "optim"):
        assert word not in path.read_text(), word


@pytest.mark.parametrize("path", FILES, ids=named)
def test_files_can_be_read_in_one_sitting(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= (150 if path in METHODS else 320)


def test_the_core_stays_small() -> None:
    code = [line for p in (SOURCE / "core").glob("*.py") for line in p.read_text().splitlines()]
    assert len(code) < 450


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_file_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_no_junk_drawers() -> None:
    names = {p.stem for p in FILES} | {p.name for p in SOURCE.rglob("*") if p.is_dir()}
    names -= {s.slug.replace("-", "_") for s in catalogue.systems()}  # papers may be called v2
    assert not [n for n in names if re.fullmatch(r"utils?|common|helpers?|misc|.*_v\d+", n)]


def test_nothing_is_unpickled_or_imported_by_name_from_a_file() -> None:
    for path in FILES:
        text = path.read_text()
        assert "pickle.load" not in text, path
        assert "torch.load" not in text, path
        assert "allow_pickle=True" not in text, path
        assert "eval(" not in text.replace("literal_eval(", "").replace(".eval(", ""), path
    importers = [p.name for p in FILES if "import_module(" in p.read_text()]
    assert sorted(importers) == ["__init__.py", "catalogue.py"]
