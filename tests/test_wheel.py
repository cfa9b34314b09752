"""What an installed package holds: one top-level name, its data files and the console command."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[1]
# What the package reads from beside its modules.
DATA = {
    "py.typed",
    "report/page/template/report.html",
    "report/page/template/report.css",
    "report/page/template/report.js",
}


def modules() -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / "sightline").rglob("*.py")}


def test_only_one_name_is_discovered():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = find_packages(str(ROOT), **settings["packages"]["find"])
    assert {name.partition(".")[0] for name in found} == {"sightline"}
    # A folder without __init__.py would be left out of the wheel.
    assert {f"{name.replace('.', '/')}/__init__.py" for name in found} == {
        f"{Path(path).parent}/__init__.py" for path in modules()
    }
    listed = {
        str(path.relative_to(ROOT / "sightline"))
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    others = {path for path in (ROOT / "sightline").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert listed == {str(path.relative_to(ROOT / "sightline")) for path in others} == DATA


@pytest.mark.slow
def test_a_wheel_holds_one_name_and_runs_alone(tmp_path: Path):
    source = tmp_path / "source"  # building writes beside the sources
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("sightline", "callbacks", "datamodules", "lightning_modules"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", source)
    build = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path)], check=True, capture_output=True, timeout=280)
    [wheel] = tmp_path.glob("sightline-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    [record] = {name.partition("/")[0] for name in names} - {"sightline"}
    assert record.endswith(".dist-info")
    assert set(names) >= modules() | {f"sightline/{name}" for name in DATA}
    assert "sightline = sightline.commands.main:main" in (site / record / "entry_points.txt").read_text()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        code = "import sys; from sightline.commands.main import main; sys.argv[0] = 'sightline'; main()"
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    assert "compare" in run("--help").stdout
    assert '"macs"' in run("cost", "--backbone", "video_swin_demo", "--json").stdout
    refused = run("fit", "--config", "configs/demo.yaml")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[0] == (
        "error: fit needs the training code, which the installed package does not contain. Run it in the Sightline "
        "repository: python train.py fit ..."
    )
