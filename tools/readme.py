"""Makes README.md from index.ipynb, and the index's own tables of lessons and questions from the lessons and settings.ini."""
import re
from pathlib import Path

from execnb.nbio import nb2str, read_nb
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import TagRemovePreprocessor
import nbformat
from project import cfg, notebooks, replace, top, write

MARK = "<!-- Made by tools/readme.py from the lessons and settings.ini: {}. -->"
DIRECTIVE = re.compile(r"^#\|\s*([\w-]+):?\s*(.*)\n?", re.M)
IMAGES = "README_files"


def title(nb: dict) -> str:
    "The title of `nb`."
    return re.search(r"^# (.+)$", nb["cells"][0]["source"], re.M)[1]


def lesson_row(path: Path) -> str:
    "One line of the table: title, what it answers and minutes, as the first cell of the lesson at `path` says."
    nb, where = read_nb(path), path.relative_to(top).as_posix()
    summary, minutes = (re.search(pattern, nb.cells[0].source, re.M) for pattern in [r"^> (.+)$", r"about (\d+) minutes"])
    return f"| [{title(nb)}]({where}) | {summary[1]} | {minutes[1] if minutes else ''} | [run]({cfg['colab_url']}/{where}) |"


def lessons() -> list[Path]: return [path for path in notebooks() if path.name < "90"]
def appendix() -> list[Path]: return [path for path in notebooks() if "90" <= path.name < "index"]


def lessons_and_links() -> str:
    "The table of lessons, the appendix, and where they can be run."
    rows = "\n".join(map(lesson_row, lessons()))
    behind = ", ".join(f"[{title(read_nb(path))}]({path.relative_to(top).as_posix()})" for path in appendix())
    return f"""## The lessons
| lesson | what you find out | minutes | Colab |
| --- | --- | --- | --- |
{rows}

The appendix holds what several lessons share: {behind}.

**Nothing to install:** open the course in [Codespaces]({cfg['codespaces_url']}), on [Binder]({cfg['binder_url']}), or a lesson in Colab (last column) after running `%pip install fastcore "groundup[plots,digits] @ git+{cfg['git_url']}"` in a first cell. The [source]({cfg['git_url']}) is open, under the Apache License 2.0."""


def questions_row(path: Path) -> str:
    "One line of the table of questions: those that the lesson at `path` closes with."
    nb = read_nb(path)
    asked = [match[1] for cell in nb.cells if cell.cell_type == "markdown" for match in re.finditer(r"^### \d+\. (.+)$", cell.source, re.M)]
    return f"| [{title(nb)}]({path.relative_to(top).as_posix()}) | {'<br>'.join(asked)} |"


def questions() -> str:
    "The table of all questions."
    rows = "\n".join(map(questions_row, lessons()))
    return f"""## All the questions
Each lesson closes with these, and with folded answers that run.

| lesson | questions |
| --- | --- |
{rows}"""


MADE = {"lessons": lessons_and_links, "questions": questions}


def update_index(path: Path):
    "Puts the generated cells of the index at `path` in step."
    found, nb = path.read_bytes(), read_nb(path)
    for name, make in MADE.items():
        mark = MARK.format(name)
        cells = [cell for cell in nb.cells if cell.source.startswith(mark)]
        if len(cells) != 1: raise SystemExit(f"{path.name} has {len(cells)} cells that start with {mark!r}; it needs one")
        cells[0].source = f"{mark}\n{make()}"
    if not replace(path, found, nb2str(nb).encode()): raise SystemExit(f"{path.name} was edited meanwhile and is left as it is: do this again")


def readme(path: Path) -> tuple[str, dict[str, bytes]]:
    "The Markdown of the notebook at `path`, and its images by name."
    nb = nbformat.read(path, as_version=4)
    nb.metadata["language_info"] = {"name": "python"} # cleaning drops it; it colours the code
    alts = {}
    for i, cell in enumerate(nb.cells):
        if cell.cell_type != "code": continue
        directives = dict(DIRECTIVE.findall(cell.source))
        cell.source = DIRECTIVE.sub("", cell.source)
        alts[i] = directives.get("fig-alt", "").strip('"')
        if directives.get("echo") == "false": cell.metadata["tags"] = ["no-input"]
    exporter = MarkdownExporter()
    exporter.register_preprocessor(TagRemovePreprocessor(remove_input_tags=["no-input"]), enabled=True)
    resources = {"output_files_dir": IMAGES, "unique_key": "index"}
    text, resources = exporter.from_notebook_node(nb, resources)
    for name in MADE: text = text.replace(MARK.format(name) + "\n", "")
    text = re.sub(r"!\[\w+\]\((\S+_(\d+)_\d+\.\w+)\)", lambda m: f"![{alts[int(m[2])]}]({Path(m[1]).as_posix()})", text)
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.M)).strip() + "\n"
    return f"<!-- Made from index.ipynb by `make refresh`; edit that. -->\n\n{text}", resources["outputs"]


if __name__ == "__main__":
    update_index(top/"index.ipynb")
    text, images = readme(top/"index.ipynb")
    write(top/"README.md", text.encode())
    for name, data in images.items(): write(top/name, data)
    for path in (top/IMAGES).glob("*"):
        if path.relative_to(top).as_posix() not in images: path.unlink()
