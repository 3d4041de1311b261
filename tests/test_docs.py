"""Every Python block of the README and of docs/ runs, each page from top to bottom in one namespace. Links and names are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

import minigrad as mg
from minigrad.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = [*sorted(ROOT.glob("[CS]*.md")), ROOT / "benchmarks" / "README.md", *sorted((ROOT / "examples").rglob("README.md"))]


def blocks(page: Path) -> list[tuple[int, str]]:
    """(line number, code) of each Python block."""
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start(1)].count("\n") + 1, m[1]) for m in re.finditer(r"```python\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page: Path, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what a page saves goes here
    namespace: dict[str, object] = {"__name__": "docs"}
    found = blocks(page)
    assert found
    for line, code in found:
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)  # line numbers of the page in tracebacks


def test_commands_of_the_data_page_run(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order, after the Python blocks, on the files that these write."""
    page = ROOT / "docs" / "data.md"
    test_blocks_run(page, minilm, tmp_path, monkeypatch)
    monkeypatch.setattr("minigrad.cli.data.find_checkpoint", {"minilm-l6": minilm}.__getitem__)
    blocks_of_commands = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    commands = "".join(blocks_of_commands).splitlines()
    assert len(commands) > 5
    for command in commands:
        words = shlex.split(command, comments=True)
        assert words[:4] == ["python", "-m", "minigrad", "data"]
        status = main(words[3:])
        assert status == (words[4] == "check"), f"{command}: {capsys.readouterr().err}"  # 1: a leak was put into test.jsonl


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if not target.startswith("http")]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("module", [mg, mg.nn, mg.optim, mg.train, mg.data, mg.io, mg.models], ids=lambda module: module.__name__)
def test_public_names_stand_on_a_page(module: ModuleType) -> None:
    words = set(re.findall(r"\w+", "".join(page.read_text(encoding="utf-8") for page in PAGES)))
    assert [name for name in module.__all__ if name not in words and not name.startswith("_")] == []


def test_the_readme_leads_to_every_page() -> None:
    links = set(re.findall(r"\]\(([^)#]+)", PAGES[0].read_text(encoding="utf-8")))
    assert [page.name for page in PAGES[1:] if f"docs/{page.name}" not in links] == []


@pytest.mark.parametrize(("page", "pattern"), [("README.md", "examples/*.*"), ("benchmarks/README.md", "benchmarks/*.py")])
def test_every_program_is_named(page: str, pattern: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [path.name for path in ROOT.glob(pattern) if path.name not in text] == []


def test_the_configuration_shown_is_the_example() -> None:
    shown = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "training.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    assert (ROOT / "examples" / "records.toml").read_text(encoding="utf-8").endswith(shown[1])
