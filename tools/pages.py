"""Makes what pages take from the lessons and settings.ini, and README.md from index.ipynb.

A Markdown cell that starts with `MARK` is filled in: the map of lessons, the table of all questions, or the glossary.
"""
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from execnb.nbio import nb2str, read_nb
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import TagRemovePreprocessor
import nbformat
from project import cfg, notebooks, replace, top, write

MARK = "<!-- Made by tools/pages.py from the lessons and settings.ini: {}. -->"
TERM = re.compile(r"\*\*([^*]+)\*\*<!-- term -->")
SENTENCE_END = re.compile(r"(?<=[.!?:])[)*]*\s+(?=[A-Z*`(\[$])")
BULLET = re.compile(r"^(> *)?((-|\d+\.) +)?")
DIRECTIVE = re.compile(r"^#\|\s*([\w-]+):?\s*(.*)\n?", re.M)
IMAGES = "README_files"


def lessons() -> list[Path]: return [path for path in sorted((top/"nbs").glob("*.ipynb")) if path.name < "90"]
def appendix() -> list[Path]: return [path for path in sorted((top/"nbs").glob("*.ipynb")) if path.name >= "90"]


def title(nb: dict) -> str:
    "The title of `nb`."
    return re.search(r"^# (.+)$", nb["cells"][0]["source"], re.M)[1]


def markdown(nb: dict) -> list[str]:
    "The Markdown cells of `nb`."
    return [cell["source"] for cell in nb["cells"] if cell["cell_type"] == "markdown"]


def exercises(nb: dict) -> list[str]:
    "The titles of the exercises in `nb`."
    return [title for text in markdown(nb) for title in re.findall(r"^### Your turn: (.+)$", text, re.M)]


def lesson_row(path: Path) -> str:
    "One line of the map: what the first cell of the lesson at `path` says, and how many exercises it has."
    nb, where = read_nb(path), path.relative_to(top).as_posix()
    summary, minutes = (re.search(pattern, nb.cells[0].source, re.M) for pattern in [r"^> (.+)$", r"about (\d+) minutes"])
    return (f"| [{title(nb)}]({where}) | {summary[1]} | {minutes[1] if minutes else ''} | {len(exercises(nb))} "
            f"| [run]({cfg['colab_url']}/{where}) |")


def lessons_and_links() -> str:
    "The map of lessons, the appendix, and where they can be run."
    rows = "\n".join(map(lesson_row, lessons()))
    behind = ", ".join(f"[{title(read_nb(path))}]({path.relative_to(top).as_posix()})" for path in appendix())
    return f"""## The lessons
| lesson | what you find out | minutes | exercises | Colab |
| --- | --- | --- | --- | --- |
{rows}

The appendix: {behind}.

**Nothing to install:** open the course in [Codespaces]({cfg['codespaces_url']}), on [Binder]({cfg['binder_url']}), or a lesson in Colab (last column) after running `%pip install fastcore "groundup[plots,digits] @ git+{cfg['git_url']}"` in a first cell. The [source]({cfg['git_url']}) is open, under the Apache License 2.0."""


def questions_row(path: Path) -> str:
    "One line of the table of questions and exercises: those of the lesson at `path`."
    nb = read_nb(path)
    asked = [question for text in markdown(nb) for question in re.findall(r"^### \d+\. (.+)$", text, re.M)]
    return f"| [{title(nb)}]({path.name}) | {'<br>'.join(asked)} | {'<br>'.join(exercises(nb))} |"


def questions() -> str:
    "The table of all questions and exercises."
    rows = "\n".join(map(questions_row, lessons()))
    return f"| lesson | questions | exercises |\n| --- | --- | --- |\n{rows}"


class Term(NamedTuple):
    name: str
    sentence: str # that introduces it
    path: Path # of the lesson that does
    section: str # of that lesson


def terms() -> Iterator[Term]:
    "The terms that the lessons introduce, in their order: in bold, and followed by a mark."
    for path in lessons():
        section = ""
        for line in "\n".join(markdown(read_nb(path))).splitlines():
            if line.startswith("#"): section = line.lstrip("# ")
            for sentence in SENTENCE_END.split(BULLET.sub("", line)):
                for name in TERM.findall(sentence): yield Term(name, TERM.sub(r"\1", sentence), path, section)


def term_row(term: Term) -> str:
    "One line of the glossary."
    name, sentence = term.name[0].upper() + term.name[1:], term.sentence.replace("|", r"\|")
    return f"| {name} | {sentence} | [{term.path.stem.split('_')[0].lstrip('0')}]({term.path.name}), {term.section} |"


def glossary() -> str:
    "The table of all terms, in alphabetical order."
    rows = "\n".join(sorted(map(term_row, terms()), key=str.lower))
    return f"| term | introduced as | lesson |\n| --- | --- | --- |\n{rows}"


MADE = {"lessons": lessons_and_links, "questions": questions, "glossary": glossary}


def fill(path: Path) -> set[str]:
    "Fills in the marked cells of the notebook at `path`; returns their names."
    found, nb, filled = path.read_bytes(), read_nb(path), set()
    for cell in nb.cells:
        for name, make in MADE.items():
            if not cell.source.startswith(mark := MARK.format(name)): continue
            cell.source = f"{mark}\n{make()}"
            filled.add(name)
    if filled and not replace(path, found, nb2str(nb).encode()):
        raise SystemExit(f"{path.name} was edited meanwhile and is left as it is: do this again")
    return filled


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
    filled = set().union(*map(fill, notebooks()))
    if missing := MADE.keys() - filled: raise SystemExit(f"no notebook has a cell for: {', '.join(sorted(missing))}")
    text, images = readme(top/"index.ipynb")
    write(top/"README.md", text.encode())
    for name, data in images.items(): write(top/name, data)
    for path in (top/IMAGES).glob("*"):
        if path.relative_to(top).as_posix() not in images: path.unlink()
