"What a teacher's tools make of a lesson: nbgrader and otter-grader, each in a new environment."
import json, os, re, subprocess, sys, sysconfig
from copy import deepcopy

import nbformat, pytest
from nbformat.v4 import new_code_cell, new_raw_cell
from project import cfg, top
from scaffold import environment
from workbook import edition

pytestmark = pytest.mark.slow
OTTER = "otter-grader==7.0.0"
# What makes otter-grader treat every cell as it treats those of its own questions, and add none.
OTTER_CONFIG = "# ASSIGNMENT CONFIG\nstrip_solutions_from_all_cells: true\ninit_cell: false\nexport_cell: false\nsuppress_no_tests_warning: true"
SCORES = """if True:
    import json
    from nbgrader.api import Gradebook
    with Gradebook("sqlite:///gradebook.db") as book:
        submissions = book.assignment_submissions("exercises")
        print(json.dumps({one.student.id: [one.score, one.max_score, {grade.name: grade.auto_score for nb in one.notebooks for grade in nb.grades}]
                          for one in submissions}))"""
lesson = nbformat.read(top/"nbs"/"01_matmul.ipynb", as_version=4)
LEARNERS = edition(lesson, "01_matmul")
TEACHERS = edition(lesson, "01_matmul", solutions=True)


def marked(nb, kind):
    "The cells of `nb` that nbgrader knows as a 'solution' or as a 'grade', by their names there."
    return {cell.metadata["nbgrader"]["grade_id"]: cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get(kind)}


SOLUTIONS = {name: cell.source for name, cell in marked(TEACHERS, "solution").items()}


def exercises_only(nb):
    "`nb` without all that the exercises do not need, so that it runs in no time."
    nb = deepcopy(nb)
    names = ", ".join(marked(nb, "grade"))
    nb.cells = [new_code_cell(f"from groundup.checks import {names}"), *(cell for cell in nb.cells if "nbgrader" in cell.metadata)]
    return nb


def solved(nb, *names):
    "`nb` with the solutions of the exercises that are named, and with all other checks replaced by something that passes."
    nb = deepcopy(nb)
    for name, cell in marked(nb, "solution").items():
        if name in names: cell.source = SOLUTIONS[name]
    for name, cell in marked(nb, "grade").items():
        if names and name.removeprefix("check_") not in names: cell.source = "pass"
    return nb


def save(nb, path):
    path.parent.mkdir(parents=True)
    nbformat.write(nb, path)


def installed(folder, *requirements):
    "A function that runs a module of a new environment with these packages, in `folder`, and returns what it prints."
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder/"new")], check=True)
    scripts = folder/"new"/("Scripts" if sys.platform == "win32" else "bin")
    # what the course needs is borrowed from here: pip installs the rest only
    site = subprocess.run([scripts/"python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True).stdout.strip()
    with open(f"{site}/borrowed.pth", "w", encoding="utf-8") as paths: print(sysconfig.get_path("purelib"), top, sep="\n", file=paths)
    pip = subprocess.run([sys.executable, "-m", "pip", "--python", str(scripts/"python"), "install", "--quiet", "--no-compile", "--retries", "1", "-c", str(top/"constraints.txt"),
                          *requirements], capture_output=True, text=True)
    if "from versions: none" in pip.stderr: pytest.skip(f"pip finds no {' '.join(requirements)} here: no network?")
    assert not pip.returncode, pip.stderr
    variables = environment(PATH=f"{scripts}{os.pathsep}{os.environ['PATH']}", # nbgrader calls alembic, which must be found
                            JUPYTER_CONFIG_DIR=str(folder/"config"), JUPYTER_DATA_DIR=str(folder/"data"))
    def run(*arguments):
        done = subprocess.run([scripts/"python", *arguments], cwd=folder, env=variables, timeout=300, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert not done.returncode, done.stdout
        return done.stdout
    return run


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    "A course of nbgrader, as its folder and what runs there: lesson 1, its exercises alone, and what is released of both."
    folder = tmp_path_factory.mktemp("course")
    run = installed(folder, *cfg["teach_requirements"].split())
    run("-m", "ipykernel", "install", "--sys-prefix") # comes before any other kernel on this machine
    save(TEACHERS, folder/"source"/"lesson"/"01_matmul.ipynb")
    save(exercises_only(TEACHERS), folder/"source"/"exercises"/"01_matmul.ipynb")
    run("-m", "nbgrader", "generate_assignment", "*")
    return folder, run


def released(course, assignment): return nbformat.read(course[0]/"release"/assignment/"01_matmul.ipynb", as_version=4)


def test_nbgrader_releases_the_learners_edition(course):
    cells = released(course, "lesson").cells
    own_stub = r"# YOUR CODE HERE\n *raise NotImplementedError\(\)"
    assert [re.sub(own_stub, "raise NotImplementedError # your code", cell.source) for cell in cells] == [cell.source for cell in LEARNERS.cells]
    assert sum(len(re.findall(own_stub, cell.source)) for cell in cells) >= len(SOLUTIONS) >= 3
    assert not any(cell.get("outputs") for cell in cells)


def test_nbgrader_validates(course):
    folder, run = course
    assert "Success! Your notebook passes all the tests." in run("-m", "nbgrader", "validate", "source/exercises/01_matmul.ipynb")
    said = run("-m", "nbgrader", "validate", "release/exercises/01_matmul.ipynb")
    assert f"VALIDATION FAILED ON {len(SOLUTIONS)} CELL(S)!" in said
    for name in SOLUTIONS: assert f"Untouched: {name} is still to be written" in said


def test_nbgrader_grades(course):
    "An untouched copy; one with the solutions; and one of our own workbook with one solution, its other checks made to pass."
    folder, run = course
    one = [*SOLUTIONS][1]
    learners = {"none": released(course, "exercises"), "all": solved(released(course, "exercises"), *SOLUTIONS), "one": solved(exercises_only(LEARNERS), one)}
    for name, nb in learners.items(): save(nb, folder/"submitted"/name/"exercises"/"01_matmul.ipynb")
    run("-m", "nbgrader", "autograde", "exercises")
    points = {"none": [], "all": SOLUTIONS, "one": [one]}
    assert json.loads(run("-c", SCORES).splitlines()[-1]) == {
        name: [len(right), len(SOLUTIONS), {f"check_{exercise}": exercise in right for exercise in SOLUTIONS}] for name, right in points.items()}


def test_otter_assigns_the_learners_edition(tmp_path):
    run = installed(tmp_path, OTTER)
    nb = deepcopy(TEACHERS)
    nb.cells.insert(0, new_raw_cell(OTTER_CONFIG))
    nbformat.write(nb, tmp_path/"01_matmul.ipynb")
    run("-m", "otter", "assign", "01_matmul.ipynb", "made")
    student = nbformat.read(tmp_path/"made"/"student"/"01_matmul.ipynb", as_version=4)
    assert [re.sub(r"(?m)^( +)\.\.\.$", r"\1raise NotImplementedError # your code", cell.source) for cell in student.cells] == [cell.source for cell in LEARNERS.cells]
    assert student.metadata.groundup.lesson == "01_matmul" # by which `make grade` knows it
