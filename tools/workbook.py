"""Makes the learner's edition, workbook/: each lesson with its exercises still to be written, and an index beside them.

`workbook.py --teacher DIR` writes the lessons to DIR with the solutions in place, each in a folder of its own: what nbgrader starts from.
"""
import argparse, re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pages import lessons, title
from project import cfg, top, write

# What JupyterLab itself writes when it opens a notebook, but for Python's version, which is the learner's own.
KERNEL = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
          "language_info": {"codemirror_mode": {"name": "ipython", "version": 3}, "file_extension": ".py", "mimetype": "text/x-python",
                            "name": "python", "nbconvert_exporter": "python", "pygments_lexer": "ipython3"}}
MARKER = re.compile(r"^[ \t]*# (BEGIN|END) SOLUTION[ \t]*$", re.M)
REGION = re.compile(r"^([ \t]*)# BEGIN SOLUTION[ \t]*\n(?:(?!.*# BEGIN SOLUTION).*\n)*?[ \t]*# END SOLUTION[ \t]*$", re.M)
STUB = r"\1raise NotImplementedError # your code"
CHECK = re.compile(r"check_(\w+)\(\1\)")
PICTURE = re.compile(r'^#\| fig-alt: "(.*)"\n', re.M)
LINK = re.compile(r"\]\((\d\d_\w+\.ipynb)")
INTRODUCTION = """# {title}: your own copy

> The lessons, with exercises for you to write. Change what you like: what you have changed is never overwritten.

Begin with [lesson 1]({first}.ipynb). Shift+Enter runs a cell and goes to the next. No cell has been run yet: where the text asks a question in bold, answer it for yourself before you run the cell below."""
HOW = """## Exercises
A section that is called *Your turn* has an exercise, in four parts.

1. The task says what to write, about how many minutes it takes, and how hard it is.
2. The cell below it begins your answer. Write your code in place of `raise NotImplementedError`, and run the cell.
3. The next cell checks your answer; run it as often as you like. For a wrong answer it shows the smallest case that fails, with what is expected beside what yours gives. If it recognises the mistake, it says what went wrong.
4. The hints are folded, one inside the other: the idea, the shapes, the line. A click opens one.

The solutions are in [the lessons as written](../nbs/{first}.ipynb), folded there too."""
PROGRESS = """## How far you are
Run the next cell; the same two lines work in any lesson. `[x]` means passed, `[/]` means tried. The results are kept in `progress.json`, beside this page, and go nowhere else. In a terminal, `make status` shows the same, and `make grade` runs all your lessons afresh and reports which exercises pass."""
UPDATES = """## When the course changes
`make lab` brings the lessons that you have not touched up to date. One that you have changed stays as it is, and the new version is put beside it, under a name such as `{name}.new.ipynb`. To begin a lesson afresh, rename or delete your copy, and run `make lab` again.

The [glossary](../nbs/94_glossary.ipynb) explains the terms, and the [summary](../nbs/95_summary.ipynb) lists all questions."""


def nbgrader(name: str, checks: bool) -> dict:
    "What nbgrader wants to know about the cell called `name`: whether it checks an answer, or is where to write one."
    points = {"points": 1} if checks else {}
    return {"grade": checks, "grade_id": name, "locked": checks, "schema_version": 3, "solution": not checks, "task": False, **points}


def check_name(cell: NotebookNode) -> str:
    "The exercise that `cell` checks, or ''."
    found = cell.cell_type == "code" and CHECK.match(cell.source)
    return found[1] if found else ""


def converted(cell: NotebookNode, name: str, solutions: bool) -> Iterator[NotebookNode]:
    "The learner's cells for a lesson's `cell`, which is followed by the check of the exercise `name`, or ''."
    if cell.cell_type != "code":
        cell.source = LINK.sub(lambda link: link[0] if link[1] < "90" else f"](../nbs/{link[1]}", cell.source)
        yield cell
        return
    if cell.source.startswith("#| default_exp"): return
    cell.outputs, cell.execution_count = [], None
    if cell.source.startswith("#| hide"): cell.metadata["jupyter"] = {"source_hidden": True}
    if MARKER.search(cell.source):
        if not name: raise SystemExit(f"the cell {cell.id} is a solution, but no check follows it")
        if 2 * len(REGION.findall(cell.source)) != len(MARKER.findall(cell.source)):
            raise SystemExit(f"{name}: each BEGIN SOLUTION needs an END SOLUTION after it")
        cell.metadata = NotebookNode(nbgrader=nbgrader(name, checks=False))
        if not solutions: cell.source = REGION.sub(STUB, cell.source)
    if check_name(cell): # with the tag, an exercise that is not solved yet does not stop "Run All Cells"
        cell.metadata = NotebookNode(nbgrader=nbgrader(f"check_{check_name(cell)}", checks=True), tags=["raises-exception"])
    pictures = PICTURE.findall(cell.source)
    cell.source = PICTURE.sub("", cell.source)
    yield cell
    for words in pictures: # would give away what comes out
        folded = f"<details><summary>The picture in words</summary>\n\n{words}\n\n</details>"
        yield new_markdown_cell(folded, id=f"{cell.id}-words")


def edition(lesson: NotebookNode, name: str, solutions: bool = False) -> NotebookNode:
    "The learner's edition of a `lesson` that is called `name`; with `solutions`, the teacher's."
    cells = deepcopy(lesson.cells)
    checks = [*map(check_name, cells[1:]), ""]
    cells = [new for cell, check in zip(cells, checks) for new in converted(cell, check, solutions)]
    return new_notebook(cells=cells, metadata=KERNEL | {"groundup": {"lesson": name}})


def row(name: str, nb: NotebookNode) -> str:
    "One line of the index: title, what the lesson called `name` answers, minutes, exercises and their minutes."
    patterns = [r"^> (.+)$", r"about (\d+) minutes", r"exercises take another (\d+) minutes"]
    summary, minutes, more = (found[1] if found else "" for found in (re.search(pattern, nb.cells[0].source, re.M) for pattern in patterns))
    number = sum(map(bool, map(check_name, nb.cells)))
    exercises = f"{number} ({more} minutes)" if more else number or ""
    return f"| [{title(nb)}]({name}.ipynb) | {summary} | {minutes} | {exercises} |"


def index(course: dict[str, NotebookNode]) -> NotebookNode:
    "The page that leads to the lessons of `course`, and says how to work with them."
    first, last = [*course][0], [*course][-1]
    rows = "\n".join(row(name, nb) for name, nb in course.items())
    cells = {"introduction": INTRODUCTION.format(title=cfg["title"], first=first),
             "lessons": f"## The lessons\n| lesson | what you find out | minutes | exercises |\n| --- | --- | --- | --- |\n{rows}",
             "exercises": HOW.format(first=first), "progress": PROGRESS, "updates": UPDATES.format(name=last)}
    cells = {name: new_markdown_cell(text, id=name) for name, text in cells.items()}
    status = new_code_cell(f"from {cfg['lib_name']}.checks import status\n\nstatus()", id="status")
    order = [cells["introduction"], cells["lessons"], cells["exercises"], cells["progress"], status, cells["updates"]]
    return new_notebook(cells=order, metadata=KERNEL | {"groundup": {"lesson": "index"}})


def save(nb: NotebookNode, path: Path):
    "Writes `nb` as Jupyter does."
    write(path, (nbformat.writes(nb) + "\n").encode())


def main(folder: Path, solutions: bool = False):
    "Writes the learner's edition of all lessons, with an index, or the teacher's, to `folder`."
    course = {path.stem: nbformat.read(path, as_version=4) for path in lessons()}
    made = {name: edition(nb, name, solutions) for name, nb in course.items()}
    if not solutions: made["index"] = index(course)
    for name, nb in made.items(): save(nb, (folder/name if solutions else folder)/f"{name}.ipynb")
    if not solutions: # what has been renamed or removed
        for path in folder.glob("*.ipynb"):
            if path.stem not in made: path.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", metavar="DIR", type=Path, help="write the lessons there instead, with the solutions in place")
    args = parser.parse_args()
    main(args.teacher or top/"workbook", solutions=bool(args.teacher))
