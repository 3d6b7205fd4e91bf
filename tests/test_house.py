"What stands around the lessons: commands, links, workflows, pictures, what is pinned and cited."
import json, re, shutil, subprocess, sys
from base64 import b64decode, b64encode
from importlib.metadata import distributions
from pathlib import Path

import nbformat, pytest
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ruamel.yaml import YAML
from project import cfg, notebooks, top
from scaffold import make, needs_make

makefile = (top/"Makefile").read_text(encoding="utf-8")
targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
readme = (top/"README.md").read_text(encoding="utf-8")


def test_commands_exist():
    for page in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "index.ipynb", *(f"nbs/{path.name}" for path in (top/"nbs").glob("*.ipynb"))]:
        named = set(re.findall(r"(?:^|[`(])make ([a-z]+)", (top/page).read_text(encoding="utf-8"), re.M))
        assert named <= targets, f"{page} names {named - targets}, which Makefile lacks"
    assert {"lab", "test"} <= set(re.findall(r"^make (\w+)", readme, re.M))


@needs_make
def test_help_lists_every_command():
    listed = make(top, "help").stdout
    assert set(re.findall(r"make (\w+) ", listed)) == targets and make(top).stdout == listed


@needs_make
@pytest.mark.parametrize("slow", ["", "1"])
def test_what_is_in_step_is_asked_last(slow):
    *_, lessons, index, tests, in_step = make(top, "-n", "test", f"ALL={slow}").stdout.splitlines()
    assert "nbdev_test --do_print" in lessons and "nbdev_test --do_print" in index # it is silent for long otherwise
    assert ('-m ""' in tests) == bool(slow) and "--ignore tests/test_in_step.py" in tests and in_step.endswith(" tests/test_in_step.py")


def test_ci_runs_the_slow_tests():
    assert (top/".ci"/"run").read_text(encoding="utf-8").splitlines()[-1] == 'exec make test ALL=1 "$@"' and "ALL=1" in readme


def test_the_two_lines_without_make():
    assert '-m pip install -c constraints.txt -e ".[dev]"' in readme and (top/"constraints.txt").is_file()


def pages():
    yield top/"README.md", readme
    for name in ["CONTRIBUTING.md", "CHANGELOG.md"]: yield top/name, (top/name).read_text(encoding="utf-8")
    for path in notebooks():
        yield path, "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path, text", list(pages()), ids=lambda x: x.name if isinstance(x, Path) else "")
def test_links_within_the_project_lead_somewhere(path, text):
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link: assert (path.parent/link.split("#")[0]).exists(), f"{path.name} links to {link}"


def test_every_link_home_comes_from_settings(tmp_path):
    for name in ["nbs", "tools"]: shutil.copytree(top/name, tmp_path/name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ["index.ipynb", "setup.py"]: shutil.copy(top/name, tmp_path/name)
    (tmp_path/"settings.ini").write_text((top/"settings.ini").read_text(encoding="utf-8").replace(f"user = {cfg['user']}", "user = someone-else"), encoding="utf-8")
    subprocess.run([sys.executable, "tools/pages.py"], cwd=tmp_path, check=True)
    for name in ["README.md", "index.ipynb"]:
        moved = (tmp_path/name).read_text(encoding="utf-8")
        assert cfg["user"] not in moved
        for site in ["github.com", "colab.research.google.com/github", "mybinder.org/v2/gh", "codespaces.new"]:
            assert f"https://{site}/someone-else/{cfg['repo']}" in moved
    for path in notebooks()[:-1]: assert cfg["user"] not in path.read_text(encoding="utf-8"), f"{path.name} names the project's home by hand"


workflows = sorted((top/".github"/"workflows").glob("*.yml"))


def schema_holds(schema, path):
    "Whether the file at `path` is what the vendor's schema asks for; what check-jsonschema says otherwise."
    checked = CliRunner().invoke(check_jsonschema, ["--builtin-schema", f"vendor.{schema}", str(path)])
    assert checked.exit_code == 0, checked.output
    return True


def test_workflows_exist():
    assert {"test", "drift"} <= {path.stem for path in workflows}


@pytest.mark.parametrize("path", workflows, ids=lambda path: path.stem)
def test_workflows_are_valid_and_ask_for_little(path):
    assert schema_holds("github-workflows", path)
    flow = YAML(typ="safe").load(path)
    assert flow["permissions"] == {"contents": "read"}
    for job in flow["jobs"].values():
        assert "permissions" not in job
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"): assert step["with"]["persist-credentials"] is False
    for line in re.findall(r"uses:.*", path.read_text(encoding="utf-8")):
        assert re.fullmatch(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), f"{line}: pin it by the digest of its commit"


def test_dependabot_looks_after_actions_and_pins():
    assert schema_holds("dependabot", top/".github"/"dependabot.yml")
    updates = YAML(typ="safe").load(top/".github"/"dependabot.yml")["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"github-actions", "pip"}


def test_citation_says_what_settings_say():
    assert schema_holds("citation-file-format", top/"CITATION.cff")
    cited = YAML(typ="safe").load(top/"CITATION.cff")
    wanted = {"cff-version": "1.2.0", "type": "software", "title": cfg["title"], "abstract": cfg["description"], "authors": [{"name": cfg["author"]}],
              "version": cfg["version"], "license": cfg["license"], "repository-code": cfg["git_url"], "keywords": cfg["keywords"].split()}
    assert {key: cited.get(key) for key in wanted} == wanted


def test_one_index_has_the_builds_for_the_cpu():
    index = "https://download.pytorch.org/whl/cpu"
    for name in [".devcontainer/devcontainer.json", *(path.relative_to(top).as_posix() for path in workflows)]:
        assert re.findall(r"INDEX=([^\s\"]+)", (top/name).read_text(encoding="utf-8")) == [index], name
    assert re.findall(r"make lab INDEX=(\S+)", readme) == [index]
    assert (top/".binder"/"requirements.txt").read_text(encoding="utf-8").splitlines()[0] == f"--extra-index-url {index}"
    for name in ["Makefile", ".ci/run", "constraints.txt", "settings.ini"]: assert index not in (top/name).read_text(encoding="utf-8")


def test_devcontainer_sets_up():
    container = json.loads((top/".devcontainer"/"devcontainer.json").read_text(encoding="utf-8"))
    assert container["postCreateCommand"].split()[:2] == ["make", "setup"]


pinned = dict(line.split("==") for line in (top/"constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line and line[0] != "#")


def test_constraints_pin_what_settings_admit():
    wanted = " ".join(cfg[key] for key in ["requirements", "plots_requirements", "digits_requirements", "dev_requirements"]).split()
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[requirement.name]), f"{requirement} and {pinned[requirement.name]}"


def test_every_pin_admits_the_first_release_of_the_oldest_python():
    installed = {dist.name: dist for dist in distributions()}
    for name, version in pinned.items():
        if name in installed and installed[name].version.split("+")[0] == version:
            admitted = installed[name].metadata.get("Requires-Python") or ""
            assert SpecifierSet(admitted).contains(f"{cfg['min_python']}.0"), f"{name} {version} needs Python {admitted}"


def shown(cell):
    "The pictures that `cell` puts out: for each, its data by format."
    outputs = cell.outputs if cell.cell_type == "code" else []
    return [out.data for out in outputs if any(kind.startswith("image/") for kind in out.get("data", {}))]


def sharp(data):
    "Whether a picture is an SVG, or a PNG with twice the pixels that matplotlib gives it."
    if "image/svg+xml" in data: return True
    width = float(re.search(r"Figure size ([\d.]+)x", data["text/plain"])[1])
    return int.from_bytes(b64decode(data["image/png"])[16:20], "big") > 1.5 * width # what is cut off at the edges is less than a quarter


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_pictures(path):
    assert path.stat().st_size < 500_000
    for n, cell in enumerate(nbformat.read(path, as_version=4).cells, 1):
        for data in shown(cell):
            place = f"{path.name}, cell {n}: a picture"
            assert re.search(r'^#\| fig-alt: ".{40,}"$', cell.source, re.M), f"{place} without a description"
            assert len([kind for kind in data if kind.startswith("image/")]) == 1, f"{place} in more than one format"
            assert sharp(data), f"{place} with few pixels; use_svg() belongs at the top"


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_pictures_are_the_same_in_each_run(path):
    cells = nbformat.read(path, as_version=4).cells
    drawn = [data["image/svg+xml"] for cell in cells for data in shown(cell) if "image/svg+xml" in data]
    assert not any("<dc:date>" in svg for svg in drawn), f"{path.name}: a picture with a date"
    if drawn: assert any(re.search(r"^use_svg\(\)", cell.source, re.M) for cell in cells), f"{path.name}: names of parts are random without use_svg()"


def test_sharp_knows_both_formats():
    def png(width): return {"image/png": b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + bytes(4)).decode(), "text/plain": "<Figure size 700x360 with 1 Axes>"}
    assert sharp({"image/svg+xml": "<svg/>", "text/plain": "<Figure size 700x360 with 1 Axes>"})
    assert sharp(png(1390)) and not sharp(png(698))
