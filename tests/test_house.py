"What stands around the lessons: commands, links, workflows, pictures, and the script that runs the lessons."
import json, re, shutil, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import nbformat, pytest
from packaging.requirements import Requirement
from tqdm import tqdm
import run # tools/run.py

top = Path(__file__).resolve().parent.parent
config = ConfigParser(delimiters=["="])
config.read(top/"settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
makefile = (top/"Makefile").read_text(encoding="utf-8")
targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
readme = (top/"README.md").read_text(encoding="utf-8")


def test_commands_exist():
    for page in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "index.ipynb", *(f"nbs/{path.name}" for path in (top/"nbs").glob("*.ipynb"))]:
        named = set(re.findall(r"(?:^|[`(])make ([a-z]+)", (top/page).read_text(encoding="utf-8"), re.M))
        assert named <= targets, f"{page} names {named - targets}, which Makefile lacks"
    assert {"lab", "test"} <= set(re.findall(r"^make (\w+)", readme, re.M))


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_help_lists_every_command():
    listed = subprocess.run(["make", "help"], cwd=top, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"make (\w+) ", listed)) == targets
    assert subprocess.run(["make"], cwd=top, capture_output=True, text=True, check=True).stdout == listed


def test_the_two_lines_without_make():
    assert '-m pip install -c constraints.txt -e ".[dev]"' in readme and (top/"constraints.txt").is_file()


def pages():
    yield top/"README.md", readme
    for name in ["CONTRIBUTING.md", "CHANGELOG.md"]: yield top/name, (top/name).read_text(encoding="utf-8")
    for path in run.notebooks():
        yield path, "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path, text", list(pages()), ids=lambda x: x.name if isinstance(x, Path) else "")
def test_links_within_the_project_lead_somewhere(path, text):
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link: assert (path.parent/link.split("#")[0]).exists(), f"{path.name} links to {link}"


def test_every_link_home_comes_from_settings(tmp_path):
    for name in ["nbs", "tools"]: shutil.copytree(top/name, tmp_path/name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ["index.ipynb", "setup.py"]: shutil.copy(top/name, tmp_path/name)
    (tmp_path/"settings.ini").write_text((top/"settings.ini").read_text(encoding="utf-8").replace(f"user = {cfg['user']}", "user = someone-else"), encoding="utf-8")
    subprocess.run([sys.executable, "tools/readme.py"], cwd=tmp_path, check=True)
    for name in ["README.md", "index.ipynb"]:
        moved = (tmp_path/name).read_text(encoding="utf-8")
        assert cfg["user"] not in moved
        for site in ["github.com", "colab.research.google.com/github", "mybinder.org/v2/gh", "codespaces.new"]:
            assert f"https://{site}/someone-else/{cfg['repo']}" in moved
    for path in run.notebooks()[:-1]: assert cfg["user"] not in path.read_text(encoding="utf-8"), f"{path.name} names the project's home by hand"


workflows = sorted((top/".github"/"workflows").glob("*.yml"))


def test_workflows_exist():
    assert {"test", "drift"} <= {path.stem for path in workflows}


@pytest.mark.parametrize("path", workflows, ids=lambda path: path.stem)
def test_workflows_are_valid(path):
    check = Path(sys.executable).with_name("check-jsonschema")
    subprocess.run([str(check), "--builtin-schema", "vendor.github-workflows", str(path)], check=True)


def test_devcontainer_sets_up():
    container = json.loads((top/".devcontainer"/"devcontainer.json").read_text(encoding="utf-8"))
    assert container["postCreateCommand"].removeprefix("make ") in targets


def test_constraints_pin_what_settings_admit():
    pinned = dict(line.split("==") for line in (top/"constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line and line[0] != "#")
    wanted = " ".join(cfg[key] for key in ["requirements", "plots_requirements", "digits_requirements", "dev_requirements"]).split()
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[requirement.name]), f"{requirement} and {pinned[requirement.name]}"


@pytest.mark.parametrize("path", run.notebooks(), ids=lambda path: path.stem)
def test_pictures(path):
    assert path.stat().st_size < 500_000
    for n, cell in enumerate(nbformat.read(path, as_version=4).cells, 1):
        if cell.cell_type == "code" and any("image/png" in out.get("data", {}) for out in cell.outputs):
            assert re.search(r'^#\| fig-alt: ".{40,}"$', cell.source, re.M), f"{path.name}, cell {n}: a picture without a description"


def written(folder, *sources):
    "A notebook with these code cells."
    path = folder/"tried.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]), path)
    return path


def test_a_failing_cell_is_named(tmp_path):
    nb, outcome = run.execute(written(tmp_path, "x = 0", "1 / x", "y = 1"), tqdm(disable=True))
    assert outcome == "cell 2: ZeroDivisionError: division by zero"


def test_cells_that_are_not_for_running_are_skipped(tmp_path):
    path = written(tmp_path, "#| eval: false\n1 / 0", "2 + 2")
    before = path.read_bytes()
    nb, outcome = run.execute(path, tqdm(disable=True))
    assert outcome == "ok" and nb.cells[1].outputs[0].data["text/plain"] == "4" and not nb.cells[0].outputs
    assert path.read_bytes() == before
