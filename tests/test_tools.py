"The scripts that run the lessons and remake what is made: stops, edits meanwhile, outputs that are stale."
import json, os, random, signal, subprocess, sys, time

import nbformat, pytest
from tqdm import tqdm
import run # tools/run.py
from digest import cell_imports, digest, package_code
from pages import MADE, MARK
from project import top, write
from scaffold import borrow_environment, kill, make, needs_make, notebook, project

silent = tqdm(disable=True)


def written(folder, *cells):
    "A notebook with these cells."
    notebook(folder/"tried.ipynb", *cells)
    return folder/"tried.ipynb"


def test_a_failing_cell_is_named(tmp_path):
    assert run.execute(written(tmp_path, "x = 0", "1 / x", "y = 1"), silent)[1] == "cell 2: ZeroDivisionError: division by zero"


def test_a_dead_kernel_is_told(tmp_path):
    assert run.execute(written(tmp_path, "import os\nos._exit(1)"), silent)[1] == "its kernel died"


def test_cells_that_are_not_for_running_are_skipped(tmp_path):
    path = written(tmp_path, "#| eval: false\n1 / 0", "2 + 2")
    before = path.read_bytes()
    nb, outcome = run.execute(path, silent)
    assert outcome == "ok" and nb.cells[1].outputs[0].data["text/plain"] == "4" and not nb.cells[0].outputs
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_stop_is_told_in_one_line(tmp_path, number):
    path = written(tmp_path, "open('begun', 'w')\nimport time\ntime.sleep(60)")
    before = path.read_bytes()
    process = subprocess.Popen([sys.executable, top/"tools"/"run.py", "--in-place", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) # which a job in the background has ignored
    while not (tmp_path/"begun").exists() and process.poll() is None: time.sleep(0.05)
    process.send_signal(number)
    told, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    lines = [line for line in errors.splitlines() if "cell" not in line and line] # those of the progress bar are no news
    assert lines == ["stopped: the notebooks that are listed as ok are done, all others are as they were"]
    assert told.split() == ["lesson", "cells", "seconds", "outcome"] and path.read_bytes() == before


def test_what_has_not_changed_is_not_run_again(tmp_path):
    path = written(tmp_path, "import time\ntime.time()")
    assert run.refresh(path, silent, named=False) == "ok"
    before = path.read_bytes()
    assert run.refresh(path, silent, named=False) == "up to date" and path.read_bytes() == before
    assert run.refresh(path, silent, named=True) == "ok" and path.read_bytes() != before
    before = path.read_bytes()
    saved = nbformat.reads(before.decode(), as_version=4) # as Jupyter saves it
    saved.cells[0].execution_count = saved.cells[0].outputs[0].execution_count = 7
    saved.metadata["language_info"] = {"name": "python"}
    nbformat.write(saved, path)
    assert run.refresh(path, silent, named=False) == "up to date" and path.read_bytes() == before
    saved.cells[0].source += " # changed"
    nbformat.write(saved, path)
    assert run.refresh(path, silent, named=False) == "ok"


def test_an_edit_made_meanwhile_stays(tmp_path):
    path = written(tmp_path, "with open('tried.ipynb', 'a') as file: file.write(' ')")
    edited = path.read_bytes() + b" "
    assert run.refresh(path, silent, named=True).startswith("left as it is, for it was edited meanwhile")
    assert path.read_bytes() == edited


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path/"file"
    write(path, b"old")
    path.chmod(0o640)
    mode = path.stat().st_mode
    def interrupted(*paths): raise KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", interrupted)
        write(path, b"new")
    assert path.read_bytes() == b"old"
    write(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"] and path.stat().st_mode == mode


def test_the_digest_sees_code_and_outputs():
    nb = {"cells": [{"cell_type": "code", "source": ["1 + 1"], "outputs": [{"text": "2"}]}, {"cell_type": "markdown", "source": ["prose"]}]}
    before = digest(nb, {})
    nb["cells"][1]["source"] = ["better prose"]
    assert digest(nb, {}) == before
    for key, value in {"source": ["1 + 2"], "outputs": []}.items():
        assert digest({"cells": [nb["cells"][0] | {key: value}]}, {}) != before
    assert digest(nb, {"groundup.matmul": ""}) != before


@pytest.mark.parametrize("source", ["from groundup.a import x", "import os, groundup.a", "import groundup.a as b", "from groundup import (z,\n    a)",
                                    "%%time\nfrom groundup.a import x", "!ls\ndef f(): import groundup.a"])
def test_imports_of_cells_are_found(source):
    assert {"groundup", "groundup.a"} <= cell_imports(source)


def test_a_cell_that_cannot_run_imports_nothing(): assert cell_imports("import groundup.a as") == cell_imports("from .. import a") == set()


def test_a_changed_module_makes_the_outputs_stale(tmp_path):
    for name, source in {"__init__": "", "low": "message = 'old'", "middle": "from .low import message", "other": ""}.items():
        write(tmp_path/"groundup"/f"{name}.py", source.encode())
    using = {name: {"cells": [{"cell_type": "code", "source": [source], "outputs": []}]} for name, source in
             {"low": "import groundup.low", "middle": "from groundup.middle import message", "other": "import groundup.other",
              "any": "import importlib\nimportlib.import_module(name)"}.items()}
    digests = lambda: {name: digest(nb, package_code(nb, tmp_path)) for name, nb in using.items()}
    before = digests()
    write(tmp_path/"groundup"/"low.py", b"# %% ../nbs/01_low.ipynb #5\nmessage = 'old'") # nbdev's marker alone
    assert digests() == before
    write(tmp_path/"groundup"/"low.py", b"message = 'new'")
    assert {name for name, value in digests().items() if value != before[name]} == {"low", "middle", "any"}


def test_the_index_depends_on_what_its_imports_import():
    code = package_code(json.loads((top/"index.ipynb").read_bytes()))
    assert {"groundup", "groundup.einsum", "groundup.training"} <= code.keys()
    for name in list(code): assert package_code({"cells": [{"cell_type": "code", "source": [f"import {name}"]}]}).items() <= code.items()


def test_a_lesson_depends_on_its_exercises():
    using = lambda name: package_code({"cells": [{"cell_type": "code", "source": [f"from groundup.checks import {name}"]}]}).keys()
    assert using("check_matmul_ikj") == {"groundup", "groundup.checks", "groundup.exercises.matmul"} and "groundup.exercises.matmul" not in using("status")


@pytest.fixture
def course(tmp_path):
    "A small course: a lesson, whose module the index imports, an appendix, and all that is made of them."
    folder = project(tmp_path/"project")
    notebook(folder/"nbs"/"01_one.ipynb", "# One\n\n> What it says.", "#| default_exp one", "#| export\ndef f(): return 1", "f()")
    notebook(folder/"nbs"/"93_low.ipynb", "# Low\n\n> What it holds.", "2")
    marks = [MARK.format(name) for name in MADE]
    notebook(folder/"index.ipynb", "# Index", "from tiny.one import f\nf()", *marks)
    borrow_environment(folder)
    done = make(folder, "refresh")
    assert done.returncode == 0, done.stdout
    return folder


def is_fresh(folder):
    "Whether `make refresh` finds nothing to do; says which files it changed otherwise."
    state = lambda: {path: path.read_bytes() for pattern in ["nbs/*", "tiny/*.py", "*.ipynb", "README*"] for path in folder.glob(pattern) if path.is_file()}
    before = state()
    done = make(folder, "refresh")
    return done.returncode == 0 and "  ok" not in done.stdout and state() == before


def edit(folder, number):
    "Lets the lesson's function return `number`."
    path = folder/"nbs"/"01_one.ipynb"
    nb = json.loads(path.read_bytes())
    nb["cells"][2]["source"] = ["#| export\n", f"def f(): return {number}"]
    path.write_text(json.dumps(nb))


@needs_make
@pytest.mark.slow
def test_refresh_follows_the_package(course):
    readme = (course/"README.md").read_text()
    assert "| [One](nbs/01_one.ipynb) | What it says. |" in readme and "The appendix: [Low](nbs/93_low.ipynb)." in readme
    assert is_fresh(course)
    edit(course, 2)
    done = make(course, "refresh")
    assert done.returncode == 0 and done.stdout.count("  ok") == 2 # the index, too, though its cells have not changed
    assert "    2\n" in (course/"README.md").read_text() and is_fresh(course)


@needs_make
@pytest.mark.slow
def test_killed_while_it_refreshes(course):
    edit(course, 2)
    start = time.monotonic()
    assert make(course, "refresh").returncode == 0
    whole, killed = time.monotonic() - start, 0
    for number in range(3, 13):
        edit(course, number)
        moment = random.uniform(0, whole)
        killed += kill(course, moment, "refresh")
        for path in [course/"nbs"/"01_one.ipynb", course/"index.ipynb"]: json.loads(path.read_bytes())
        assert f"return {number}" in (course/"nbs"/"01_one.ipynb").read_text(), f"the edit is lost: killed after {moment:.2f} s of {whole:.2f}"
        done = make(course, "refresh")
        assert done.returncode == 0, f"killed after {moment:.2f} s of {whole:.2f}: {done.stdout}"
        assert f"    {number}\n" in (course/"README.md").read_text()
    assert killed >= 5 and is_fresh(course)
    assert not list(course.rglob(".*.new"))


@needs_make
@pytest.mark.slow
def test_killed_while_it_runs(course):
    before = {path: path.read_bytes() for path in [*course.glob("nbs/*"), *course.glob("tiny/*.py"), course/"index.ipynb"]}
    start = time.monotonic()
    assert make(course, "run").returncode == 0
    whole = time.monotonic() - start
    killed = sum(kill(course, random.uniform(0, whole), "run") for _ in range(10))
    assert killed >= 5 and make(course, "run").returncode == 0
    assert all(path.read_bytes() == data for path, data in before.items())
    for path in (course/"_build").rglob("*.ipynb"): assert json.loads(path.read_bytes())["cells"][-1]
