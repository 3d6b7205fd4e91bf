"Package, notebooks, README and workbook are in step: remaking them from a copy changes nothing."
import json, os, shutil, subprocess, sys
from pathlib import Path

import pytest
from digest import digest, package_code
from project import notebooks, top


def files(root, *patterns):
    "The files under `root` that match, by relative name. Windows ends lines as git is told to, nbdev as Windows does."
    return {path.relative_to(root).as_posix(): path.read_bytes().replace(b"\r\n", b"\n")
            for pattern in patterns for path in root.glob(pattern) if path.is_file() and "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def remade(tmp_path_factory):
    "A copy of the project with everything remade that `make refresh` makes without running a notebook."
    copy = tmp_path_factory.mktemp("remade")/"project"
    copy.mkdir()
    for name in ["nbs", "tools", "README_files"]: shutil.copytree(top/name, copy/name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for name in ["settings.ini", "setup.py", "index.ipynb", "README.md"]: shutil.copy(top/name, copy/name)
    environment = {name: value for name, value in os.environ.items() if name != "IN_TEST"} # nbdev_export does nothing under it
    scripts = Path(sys.executable).parent
    for command in [[scripts/"nbdev_export"], [scripts/"nbdev_clean"], [scripts/"nbdev_clean", "--fname", "index.ipynb"],
                    [sys.executable, "tools/pages.py"], [sys.executable, "tools/workbook.py"]]:
        subprocess.run(list(map(str, command)), cwd=copy, env=environment, check=True, timeout=120)
    return copy


@pytest.mark.parametrize("what, patterns, fix", [
    ("groundup/ is out of step with the notebooks", ["groundup/**/*"], "change the notebook, not the module, and run `make refresh`"),
    ("notebooks are not clean, or the glossary or the questions are out of step", ["nbs/**/*.ipynb"], "run `make refresh`"),
    ("README or the map of lessons is out of step", ["README.md", "README_files/*", "index.ipynb"], "change index.ipynb or settings.ini and run `make refresh`"),
    ("workbook/ is out of step with the lessons", ["workbook/*"], "change the lesson, not the workbook, and run `make workbook`"),
], ids=["package", "notebooks", "README", "workbook"])
def test_in_step(remade, what, patterns, fix):
    made, found = files(remade, *patterns), files(top, *patterns)
    assert made, f"nothing matches {patterns}"
    different = sorted(name for name in made.keys() | found.keys() if made.get(name) != found.get(name))
    assert not different, f"{what}: {', '.join(different)}; {fix}"


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_outputs_are_not_stale(path):
    nb = json.loads(path.read_text(encoding="utf-8"))
    fresh = nb["metadata"].get("groundup", {}).get("digest") == digest(nb, package_code(nb))
    assert fresh, f"{path.name}: its outputs are stale, they were made from other code than its cells or the package have now; run `make refresh`"
