"The learner's edition: the whole lesson, without outputs and solutions, in a form that JupyterLab and nbgrader take as it is."
import ast, json, re
from collections import Counter

import nbformat, pytest
from ipykernel.ipkernel import IPythonKernel
from jupyter_client.kernelspec import get_kernel_spec
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
import workbook # tools/workbook.py
from groundup import checks
from pages import lessons
from project import top

LESSONS = {path.stem: nbformat.read(path, as_version=4) for path in lessons()}
MADE = {name: workbook.edition(nb, name) for name, nb in LESSONS.items()}
INDEX = workbook.index(LESSONS)
each_lesson = pytest.mark.parametrize("name", LESSONS)
each_notebook = pytest.mark.parametrize("nb", [*MADE.values(), INDEX], ids=[*MADE, "index"])


def code(nb): return [cell for cell in nb.cells if cell.cell_type == "code"]
def is_solution(cell): return "# BEGIN SOLUTION" in cell.source


def lines(sources):
    "How often each line is in `sources`, without its indentation."
    return Counter(line.strip() for source in sources for line in source.splitlines())


@each_lesson
def test_no_line_of_a_solution_is_left(name):
    regions = [part for cell in filter(is_solution, code(LESSONS[name])) for part in re.findall(r"# BEGIN SOLUTION(.*?)# END SOLUTION", cell.source, re.S)]
    outside = [re.sub(r"# BEGIN SOLUTION.*?# END SOLUTION", "", cell.source, flags=re.S) for cell in LESSONS[name].cells]
    wanted, left = lines(outside), lines(cell.source for cell in MADE[name].cells)
    for line in {line.strip() for part in regions for line in part.splitlines()} - {""}: assert left[line] == wanted[line], line
    assert "SOLUTION" not in json.dumps(MADE[name])


@each_lesson
def test_each_exercise_is_a_stub_and_a_check(name):
    names = checks._lessons().get(name, [])
    written, checking = ([cell for cell in code(MADE[name]) if key in cell.metadata and cell.metadata[key]["solution"] == wanted]
                         for key, wanted in [("nbgrader", True), ("nbgrader", False)])
    assert [cell.metadata["nbgrader"]["grade_id"] for cell in written] == names
    assert [cell.metadata["nbgrader"]["grade_id"] for cell in checking] == [f"check_{exercise}" for exercise in names]
    for exercise, cell, check in zip(names, written, checking):
        tree = ast.parse(cell.source)
        assert exercise in [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        raised = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Raise)]
        before = next(cell for cell in code(LESSONS[name]) if is_solution(cell) and re.search(rf"\b(def|class) {exercise}\b", cell.source))
        assert raised == ["raise NotImplementedError"] * before.source.count("# BEGIN SOLUTION") and "# your code" in cell.source
        assert "jupyter" not in cell.metadata and check.source.startswith(f"check_{exercise}({exercise})")


@each_lesson
def test_all_else_is_the_lesson(name):
    made = {cell.id: cell for cell in MADE[name].cells}
    for cell in LESSONS[name].cells:
        if cell.source.startswith("#| default_exp"):
            assert cell.id not in made
            continue
        source = made[cell.id].source
        if cell.cell_type == "markdown": assert re.sub(r"\(\.\./nbs/", "(", source) == cell.source
        elif not is_solution(cell): assert source == re.sub(r"#\| fig-alt: .*\n", "", cell.source)
        if cell.cell_type == "code" and cell.metadata.get("jupyter") and not is_solution(cell):
            assert made[cell.id].metadata == cell.metadata # an answer that is folded
    order = [cell.id for cell in MADE[name].cells if not cell.id.endswith("-words")]
    assert order == [cell.id for cell in LESSONS[name].cells if cell.id in made]


@each_lesson
def test_answers_are_folded(name):
    answering = False
    for cell in MADE[name].cells:
        if cell.cell_type == "markdown":
            answering = bool(re.search(r"^### \d+\. ", cell.source, re.M))
            assert not answering or "<details><summary>Answer" in cell.source
        elif answering: assert cell.metadata == {"jupyter": {"source_hidden": True}}, f"{name}: {cell.source}"


@each_lesson
def test_pictures_are_described_behind_a_fold(name):
    words = [found for cell in code(LESSONS[name]) for found in re.findall(r'^#\| fig-alt: "(.*)"', cell.source, re.M)]
    folded = [cell.source for cell in MADE[name].cells if cell.id.endswith("-words")]
    assert folded == [f"<details><summary>The picture in words</summary>\n\n{text}\n\n</details>" for text in words]
    assert not any("fig-alt" in cell.source for cell in code(MADE[name]))


@each_notebook
def test_it_is_a_valid_notebook_that_has_not_been_run(nb):
    nbformat.validate(nb)
    assert (nb.nbformat, nb.nbformat_minor) == (4, 5) and len({cell.id for cell in nb.cells}) == len(nb.cells)
    for cell in code(nb): assert cell.outputs == [] and cell.execution_count is None
    ids = [cell.metadata["nbgrader"]["grade_id"] for cell in nb.cells if "nbgrader" in cell.metadata]
    assert len(set(ids)) == len(ids)


@each_notebook
def test_jupyter_has_nothing_to_add_to_its_metadata(nb):
    spec = get_kernel_spec("python3")
    assert nb.metadata["kernelspec"] == {"name": "python3", "display_name": spec.display_name, "language": spec.language}
    assert nb.metadata["language_info"] | {"version": ""} == IPythonKernel.language_info | {"version": ""}
    assert set(nb.metadata) == {"kernelspec", "language_info", "groundup"}


@each_notebook
def test_links_lead_somewhere(nb):
    for link in re.findall(r"\]\(([^)\s]+)\)", "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")):
        if "://" in link: continue
        if (path := link.split("#")[0]) in {f"{name}.ipynb" for name in LESSONS}: continue
        assert (top/"workbook"/path).exists() and path.startswith("../"), f"{nb.metadata['groundup']['lesson']} links to {link}"


def test_what_nbgrader_reads():
    nb = workbook.edition(lesson(), "01_x")
    assert [cell.metadata for cell in code(nb)] == [
        {"nbgrader": {"grade": False, "grade_id": "double", "locked": False, "schema_version": 3, "solution": True, "task": False}},
        {"nbgrader": {"grade": True, "grade_id": "check_double", "locked": True, "points": 1, "schema_version": 3, "solution": False, "task": False},
         "tags": ["raises-exception"]}]
    assert nb.metadata["groundup"] == {"lesson": "01_x"}


ANSWER = "def double(x): # a number\n    # BEGIN SOLUTION\n    y = x + x\n\n    return y\n    # END SOLUTION"


def lesson(*cells, answer=ANSWER):
    "A lesson with one exercise."
    first = new_markdown_cell("# X\n\n> What it says.\n\nIt takes about 40 minutes. The exercises take another 5 minutes.")
    return new_notebook(cells=[first, new_code_cell(answer), new_code_cell("check_double(double)"), *cells])


def test_a_stub_keeps_what_stands_around_the_solution():
    both = "class Double:\n    def __init__(self):\n        # BEGIN SOLUTION\n        self.n = 2\n        # END SOLUTION\n\n" \
           "    def __call__(self, x):\n        # BEGIN SOLUTION\n        return self.n * x\n        # END SOLUTION\n\ndouble = Double"
    stub = "class Double:\n    def __init__(self):\n        raise NotImplementedError # your code\n\n" \
           "    def __call__(self, x):\n        raise NotImplementedError # your code\n\ndouble = Double"
    assert workbook.edition(lesson(answer=both), "01_x").cells[1].source == stub


def test_the_teacher_s_edition_keeps_the_solutions():
    teacher, learner = workbook.edition(lesson(), "01_x", solutions=True), workbook.edition(lesson(), "01_x")
    assert [cell.source for cell in teacher.cells[1:]] == [ANSWER, "check_double(double)"] and teacher.metadata == learner.metadata
    assert [cell.metadata for cell in teacher.cells] == [cell.metadata for cell in learner.cells]


@pytest.mark.parametrize("answer", [ANSWER.replace("# END", "# end"), ANSWER.replace("# BEGIN", "# begin"),
                                    ANSWER + "\n    # BEGIN SOLUTION", ANSWER.replace("    return", "    # BEGIN SOLUTION\n    return")])
def test_a_region_without_its_end_is_refused(answer):
    with pytest.raises(SystemExit, match="double: each BEGIN SOLUTION needs an END SOLUTION after it"): workbook.edition(lesson(answer=answer), "01_x")


def test_a_solution_without_a_check_is_refused():
    with pytest.raises(SystemExit, match="is a solution, but no check follows it"): workbook.edition(new_notebook(cells=[new_code_cell(ANSWER)]), "01_x")


def test_links_to_the_appendix():
    texts = ["[a](02_b.ipynb#c), [a](93_d.ipynb#c), [a](../index.ipynb), [a](https://x.org/93_d.ipynb)",
             "[a](02_b.ipynb#c), [a](../nbs/93_d.ipynb#c), [a](../index.ipynb), [a](https://x.org/93_d.ipynb)"]
    assert workbook.edition(lesson(new_markdown_cell(texts[0])), "01_x").cells[-1].source == texts[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "A folder with two lessons, as the tool sees it."
    for name in ["01_x", "02_y"]: nbformat.write(lesson(), tmp_path/f"{name}.ipynb")
    monkeypatch.setattr(workbook, "lessons", lambda: sorted(tmp_path.glob("*.ipynb")))
    return tmp_path


def test_what_is_written(folder):
    workbook.main(folder/"workbook")
    made = {path.name: path.read_bytes() for path in (folder/"workbook").iterdir()}
    assert set(made) == {"01_x.ipynb", "02_y.ipynb", "index.ipynb"} and b"x + x" not in b"".join(made.values())
    workbook.main(folder/"workbook")
    assert made == {path.name: path.read_bytes() for path in (folder/"workbook").iterdir()}
    (folder/"02_y.ipynb").rename(folder/"02_z.ipynb")
    workbook.main(folder/"workbook")
    assert {path.name for path in (folder/"workbook").iterdir()} == {"01_x.ipynb", "02_z.ipynb", "index.ipynb"}


def test_a_teacher_s_folder(folder):
    (folder/"source").mkdir()
    (folder/"source"/"extra.ipynb").touch()
    workbook.main(folder/"source", solutions=True)
    assert {path.name for path in (folder/"source").iterdir()} == {"01_x", "02_y", "extra.ipynb"}
    assert "# BEGIN SOLUTION" in (folder/"source"/"01_x"/"01_x.ipynb").read_text() # as nbgrader wants it


def test_the_map():
    assert workbook.row("01_x", lesson()) == "| [X](01_x.ipynb) | What it says. | 40 | 1 (5 minutes) |"
    rows = re.findall(r"^\| \[.+\]\((\w+)\.ipynb\) \| .+ \| \d+ \| (\d*).*\|$", INDEX.cells[1].source, re.M)
    assert rows == [(name, str(len(checks._lessons()[name])) if name in checks._lessons() else "") for name in LESSONS]
    assert next(cell for cell in code(INDEX)).source == "from groundup.checks import status\n\nstatus()"
