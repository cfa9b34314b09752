"""What the pages name is there: links, headings, commands and their options."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

import train

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Commands that do not take a configuration.
ALONE = {"report", "compare", "cost"}


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> list[str]:
    """Commands that the pages show, without those whose options another one has too."""
    found: dict[tuple[str, frozenset[str]], str] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^ *(?:python train\.py|sightline) ([a-z][a-z-]+ .+)$", text, flags=re.MULTILINE):
            words = line.partition(" # ")[0].split()
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            if words[0] not in ALONE and "--exported" not in options:
                found.setdefault((words[0], frozenset(options)), " ".join(words))
    return [text for (name, some), text in found.items() if not any(name == n and some < more for n, more in found)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^- \[(\w+\.md)\]", index, flags=re.MULTILINE)) == {
        page.name for page in PAGES if page.name != "README.md"
    }


@pytest.mark.parametrize("command", commands())
def test_commands_and_their_options_exist(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Everything is parsed, and nothing is run: ``--print_config`` ends a command before it begins."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    command = re.sub(r"<[^>]+>", "somewhere", command)
    for run in re.findall(r"--run (\S+)", command):
        Path(run).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "configs" / "driver_clips_swin_s.yaml", Path(run) / "config.yaml")
    for config in re.findall(r"--config (runs/\S+)", command):
        Path(config).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "configs" / "demo.yaml", config)
    if not {"--config", "--run", "--data"} & set(command.split()):
        command += " --config configs/demo.yaml"
    given = shlex.split(command)
    with pytest.raises(SystemExit) as ended:
        train.main(given if "--help" in given else [*given, "--print_config"])
    assert ended.value.code == 0, capsys.readouterr().err[-2000:]
