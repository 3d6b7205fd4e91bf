"""Makes README.md from index.ipynb, and the index's own tables of lessons and questions from the lessons and settings.ini."""
import re, shutil
from configparser import ConfigParser
from pathlib import Path

from execnb.nbio import read_nb, write_nb
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import TagRemovePreprocessor
import nbformat

top = Path(__file__).resolve().parent.parent
MARK = "<!-- Made by tools/readme.py from the lessons and settings.ini: {}. -->"
DIRECTIVE = re.compile(r"^#\|\s*([\w-]+):?\s*(.*)\n?", re.M)
IMAGES = "README_files"


def settings() -> dict:
    "What settings.ini says."
    config = ConfigParser(delimiters=["="])
    config.read(top/"settings.ini", encoding="utf-8")
    return config["DEFAULT"]


def lesson_row(path: Path, cfg: dict) -> str:
    "One line of the table: title, what it answers and minutes, as the first cell of the lesson at `path` says."
    head = read_nb(path).cells[0].source
    title, summary = re.search(r"^# (.+)$", head, re.M)[1], re.search(r"^> (.+)$", head, re.M)[1]
    minutes = re.search(r"about (\d+) minutes", head)
    where = path.relative_to(top).as_posix()
    return f"| [{title}]({where}) | {summary} | {minutes[1] if minutes else ''} | [run]({cfg['colab_url']}/{where}) |"


def notebooks() -> tuple[list[Path], list[Path]]:
    "The lessons and the appendix, in order."
    paths = sorted((top/"nbs").glob("*.ipynb"))
    return [path for path in paths if path.name < "90"], [path for path in paths if path.name >= "90"]


def lessons_and_links(cfg: dict) -> str:
    "The table of lessons, and where they can be run."
    lessons, appendix = notebooks()
    rows = "\n".join(lesson_row(path, cfg) for path in lessons)
    behind = ", ".join(f"[{path.stem}]({path.relative_to(top).as_posix()})" for path in appendix)
    return f"""## The lessons
| lesson | what you find out | minutes | Colab |
| --- | --- | --- | --- |
{rows}

How the lessons measure and draw stands in the appendix: {behind}.

**Nothing to install:** open the course in [Codespaces]({cfg['codespaces_url']}), on [Binder]({cfg['binder_url']}), or a lesson in Colab (last column) after running `%pip install fastcore "groundup[plots,digits] @ git+{cfg['git_url']}"` in a first cell. The [source]({cfg['git_url']}) is open, under the Apache License 2.0."""


def questions_row(path: Path) -> str:
    "One line of the table of questions: those that the lesson at `path` closes with."
    nb = read_nb(path)
    title = re.search(r"^# (.+)$", nb.cells[0].source, re.M)[1]
    asked = [match[1] for cell in nb.cells if cell.cell_type == "markdown" for match in re.finditer(r"^### \d+\. (.+)$", cell.source, re.M)]
    return f"| [{title}]({path.relative_to(top).as_posix()}) | {'<br>'.join(asked)} |"


def questions(cfg: dict) -> str:
    "The table of all questions."
    rows = "\n".join(map(questions_row, notebooks()[0]))
    return f"""## All the questions
Each lesson closes with these, and with folded answers that run.

| lesson | questions |
| --- | --- |
{rows}"""


MADE = {"lessons": lessons_and_links, "questions": questions}


def update_index(path: Path, cfg: dict):
    "Puts the generated cells of the index at `path` in step, leaving the file alone if they are."
    nb, changed = read_nb(path), False
    for name, make in MADE.items():
        mark = MARK.format(name)
        cells = [cell for cell in nb.cells if cell.source.startswith(mark)]
        if len(cells) != 1: raise SystemExit(f"{path.name} has {len(cells)} cells that start with {mark!r}; it needs one")
        source = f"{mark}\n{make(cfg)}"
        changed = changed or cells[0].source != source
        cells[0].source = source
    if changed: write_nb(nb, path)


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
    update_index(top/"index.ipynb", settings())
    text, images = readme(top/"index.ipynb")
    (top/"README.md").write_text(text, encoding="utf-8", newline="\n")
    shutil.rmtree(top/IMAGES, ignore_errors=True)
    for name, data in images.items():
        (top/name).parent.mkdir(exist_ok=True)
        (top/name).write_bytes(data)
