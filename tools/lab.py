"""Opens a learner's own copies of the lessons in JupyterLab: `lab.py [NOTEBOOK] [OPTIONS OF JUPYTERLAB]`.

The copies are in my/, made from workbook/. Those that the learner has not touched follow the course; the others are never
written again, and what has changed since is put beside them. With a NOTEBOOK, that is opened instead.
"""
import hashlib, json, os, sys
from pathlib import Path
from urllib.parse import quote

from project import replace, top, write

COURSE, MINE = top/"workbook", top/"my"
TOLD = ".told.json" # for each lesson that the learner has changed, the version of the course that was last put beside it


def say(sentence: str): print(sentence, file=sys.stderr)


def digest(nb: dict) -> str:
    "A digest of all in `nb` that a learner can change. In the index, whose only output is the progress, without outputs."
    cells, metadata = nb["cells"], {key: value for key, value in nb["metadata"].items() if key not in ["groundup", "language_info"]}
    if nb["metadata"].get("groundup", {}).get("lesson") == "index":
        cells = [{key: value for key, value in cell.items() if key not in ["outputs", "execution_count"]} for cell in cells]
    return hashlib.sha256(json.dumps([cells, metadata], sort_keys=True).encode()).hexdigest()


def stamped(data: bytes) -> tuple[bytes, str]:
    "A notebook of workbook/ as it is handed out: stamped with its digest, and with the version of Python that JupyterLab would put in."
    nb = json.loads(data)
    version = digest(nb)
    nb["metadata"]["groundup"]["digest"] = version
    nb["metadata"]["language_info"]["version"] = sys.version.split()[0]
    return (json.dumps(nb, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode(), version


def versions(data: bytes) -> tuple[str, str]:
    "The version of the course that a copy was handed out as, and the digest of what it is now; both '' if it is no such copy."
    try:
        nb = json.loads(data)
        return nb["metadata"]["groundup"]["digest"], digest(nb)
    except (ValueError, LookupError, TypeError, AttributeError): return "", ""


def untouched(data: bytes) -> bool:
    "Whether a copy is still what was handed out."
    handed_out, now = versions(data)
    return handed_out == now != ""


def beside(path: Path) -> Path:
    "Where to put a new version of the lesson at `path`: the first such name that holds nothing of the learner's."
    number = 1
    while True:
        new = path.with_suffix(f".{number}.new.ipynb" if number > 1 else ".new.ipynb")
        if not new.exists() or untouched(new.read_bytes()): return new
        number += 1


def hand_out(source: Path, told: dict[str, str]) -> str:
    "Brings the copy of `source` up to date, or puts the new version beside it and returns a sentence that says so."
    path = MINE/source.name
    data, version = stamped(source.read_bytes())
    if not path.exists():
        write(path, data)
        return ""
    found = path.read_bytes()
    if untouched(found):
        replace(path, found, data)
        return ""
    if version in [*versions(found), told.get(source.name)]: return ""
    new = beside(path)
    write(new, data)
    told[source.name] = version
    reason = "has changed since you began it" if versions(found)[0] else "cannot be compared with the course's"
    return f"my/{path.name} {reason}: yours stays as it is, and the course's is beside it, my/{new.name}."


def already_told() -> dict[str, str]:
    "What `TOLD` holds."
    try: told = json.loads((MINE/TOLD).read_bytes())
    except FileNotFoundError: return {}
    except ValueError: told = None
    if isinstance(told, dict): return told
    say(f"my/{TOLD} could not be read and is begun afresh: new versions of lessons may be put beside yours a second time.")
    return {}


def update():
    "Brings my/ up to date, and says what the learner should know."
    if MINE.exists() and not MINE.is_dir():
        return say("Your copies of the lessons belong in a folder called my, but that is a file here: rename it.")
    told, sources, failed = already_told(), sorted(COURSE.glob("*.ipynb")), {}
    if not sources: say("workbook/ has no lessons to hand out: `make workbook` makes them.")
    for source in sources:
        try:
            if news := hand_out(source, told):
                say(news)
                write(MINE/TOLD, json.dumps(told, indent=1).encode())
        except OSError as error: failed.setdefault(error.strerror, []).append(f"my/{source.name}")
        except (ValueError, LookupError, TypeError, AttributeError):
            say(f"workbook/{source.name} could not be read and is left out: `make workbook` makes it again.")
    try:
        if not (MINE/"progress.json").exists(): write(MINE/"progress.json", b"{}")
    except OSError as error: failed.setdefault(error.strerror, []).append("my/progress.json")
    for reason, names in failed.items(): say(f"Could not be read or written ({reason}), and left as it is: {', '.join(names)}.")


def command_line(arguments: list[str]) -> tuple[Path, list[str]]:
    "The page to open, and the other arguments, which are JupyterLab's."
    pages = [argument for argument in arguments if argument.endswith(".ipynb")]
    if not pages and arguments and not arguments[0].startswith("-"): pages = arguments[:1] # a folder
    return Path(os.path.abspath(pages[0])) if pages else MINE/"index.ipynb", [argument for argument in arguments if argument not in pages[:1]]


def options(page: Path) -> list[str]:
    "The options with which JupyterLab opens `page`, and asks nobody anything: neither the learner nor the network."
    address = "/lab/tree/" + quote(page.relative_to(top).as_posix())
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [] # which one is in most containers
    return [f"--ServerApp.root_dir={top}", f"--LabApp.default_url={address}", "--LabApp.extension_manager=readonly",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None", *root]


def main(arguments: list[str]) -> int:
    "Opens a page, after bringing my/ up to date if it is there. Returns the exit status."
    page, others = command_line(arguments)
    if not page.is_relative_to(top):
        say(f"{page} is not in the course's folder, {top}.")
        return 1
    if page.is_relative_to(MINE):
        try: update()
        except OSError as error: say(f"{error.filename} could not be read or written ({error.strerror}), and is left as it is.")
    if not page.exists():
        say(f"There is no {page.relative_to(top)} to open.")
        return 1
    # Where JupyterLab is told to leave out the part that offers news and looks for updates.
    paths = [str(top/"tools"/"jupyter"), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(paths)
    from jupyterlab.labapp import LabApp
    return LabApp.launch_instance([*options(page), *others]) or 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
