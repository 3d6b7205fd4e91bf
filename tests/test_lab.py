"A learner's own copies: what the learner has touched is never written again, and the rest follows the course."
import json, os, random, re, signal, subprocess, sys, time, urllib.error, urllib.request
from pathlib import Path

import nbformat, pytest
from ipykernel.ipkernel import IPythonKernel
from jupyter_server.services.contents.filemanager import FileContentsManager
from nbformat.v4 import new_code_cell, new_notebook, new_output
import lab, workbook # tools/
from project import top
from scaffold import make, needs_make, project

NAMES = ["01_x.ipynb", "02_y.ipynb", "index.ipynb"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    "A course of two lessons, in a folder of its own, and a JupyterLab that ends at once."
    monkeypatch.setattr(lab, "COURSE", tmp_path/"workbook")
    monkeypatch.setattr(lab, "MINE", tmp_path/"my")
    monkeypatch.setattr(lab, "top", tmp_path)
    monkeypatch.setattr("jupyterlab.labapp.LabApp.launch_instance", lambda arguments: None)
    for name in NAMES: publish(name, "1 + 1")
    return tmp_path


def publish(name, *cells):
    "The course's version of a lesson."
    cells = [new_code_cell(source, id=str(n)) for n, source in enumerate(cells)]
    workbook.save(new_notebook(cells=cells, metadata=workbook.KERNEL | {"groundup": {"lesson": name.split(".")[0]}}), lab.COURSE/name)


def read(name): return nbformat.read(lab.MINE/name, as_version=4)
def source(name): return "\n".join(cell.source for cell in read(name).cells)
def files(): return {path.name: path.read_bytes() for path in lab.MINE.iterdir() if path.is_file()}


def touch(name, source="mine"):
    "What a learner writes into the first cell of a copy, as Jupyter saves it."
    nb = read(name)
    nb.cells[0].source = source
    nbformat.write(nb, lab.MINE/name)


def update(capsys):
    "What the terminal says to an update."
    lab.update()
    return capsys.readouterr().err


def test_what_is_handed_out_first(capsys):
    assert update(capsys) == ""
    assert set(files()) == {*NAMES, "progress.json"} and files()["progress.json"] == b"{}"
    for name in NAMES: nbformat.validate(read(name))
    before = files()
    assert update(capsys) == "" and files() == before


def test_opening_a_copy_changes_nothing():
    lab.update()
    before, jupyter = files(), FileContentsManager(root_dir=str(lab.MINE))
    for name in NAMES:
        assert read(name).metadata["language_info"] == IPythonKernel.language_info # what JupyterLab puts in
        jupyter.save(jupyter.get(name), name)
    assert files() == before


def test_what_is_untouched_follows(capsys):
    lab.update()
    publish("01_x.ipynb", "2 + 2")
    publish("03_z.ipynb", "3 + 3")
    assert update(capsys) == "" and source("01_x.ipynb") == "2 + 2" and source("03_z.ipynb") == "3 + 3"


def ran(nb): nb.cells[0].outputs, nb.cells[0].execution_count = [new_output("stream", text="2\n")], 1
def wrote(nb): nb.cells[0].source = "mine"
def added(nb): nb.cells.append(new_code_cell("mine"))
def removed(nb): nb.cells.pop()
def folded(nb): nb.cells[0].metadata["jupyter"] = {"source_hidden": True}
def tagged(nb): nb.metadata["title"] = "mine"


@pytest.mark.parametrize("change", [ran, wrote, added, removed, folded, tagged])
def test_what_is_touched_is_never_written_again(change, capsys):
    lab.update()
    nb = read("01_x.ipynb")
    change(nb)
    nbformat.write(nb, lab.MINE/"01_x.ipynb")
    before = files()
    assert update(capsys) == "" and files() == before
    publish("01_x.ipynb", "2 + 2")
    said = update(capsys)
    assert said.count("\n") == 1 and "yours stays as it is, and the course's is beside it, my/01_x.new.ipynb." in said
    assert files()["01_x.ipynb"] == before["01_x.ipynb"] and source("01_x.new.ipynb") == "2 + 2"
    before = files()
    assert update(capsys) == "" and files() == before # once is enough
    (lab.MINE/"01_x.new.ipynb").unlink()
    assert update(capsys) == "" and not (lab.MINE/"01_x.new.ipynb").exists()


def test_a_copy_without_its_stamp_stays(capsys):
    lab.update()
    nb = read("01_x.ipynb")
    nb.metadata.clear()
    wrote(nb)
    nbformat.write(nb, lab.MINE/"01_x.ipynb")
    assert "my/01_x.ipynb cannot be compared with the course's: yours stays as it is" in update(capsys)
    assert source("01_x.ipynb") == "mine" and source("01_x.new.ipynb") == "1 + 1" and update(capsys) == ""


def test_another_python_touches_nothing(capsys):
    lab.update()
    nb = read("01_x.ipynb")
    nb.metadata["language_info"]["version"] = "3.99.0"
    nbformat.write(nb, lab.MINE/"01_x.ipynb")
    publish("01_x.ipynb", "2 + 2")
    assert update(capsys) == "" and source("01_x.ipynb") == "2 + 2" and read("01_x.ipynb").metadata["language_info"] == IPythonKernel.language_info


def test_progress_shown_in_the_index_touches_nothing(capsys):
    lab.update()
    nb = read("index.ipynb")
    ran(nb)
    nbformat.write(nb, lab.MINE/"index.ipynb")
    publish("index.ipynb", "2 + 2")
    assert update(capsys) == "" and source("index.ipynb") == "2 + 2"
    touch("index.ipynb")
    publish("index.ipynb", "3 + 3")
    assert "my/index.new.ipynb" in update(capsys) and source("index.ipynb") == "mine"


def test_one_change_after_the_other(capsys):
    lab.update()
    touch("01_x.ipynb")
    publish("01_x.ipynb", "2 + 2")
    assert "my/01_x.new.ipynb" in update(capsys)
    publish("01_x.ipynb", "3 + 3")
    assert "my/01_x.new.ipynb" in update(capsys) and source("01_x.new.ipynb") == "3 + 3"
    touch("01_x.new.ipynb", "mine, too")
    publish("01_x.ipynb", "4 + 4")
    assert "my/01_x.2.new.ipynb" in update(capsys)
    assert [source(name) for name in ["01_x.ipynb", "01_x.new.ipynb", "01_x.2.new.ipynb"]] == ["mine", "mine, too", "4 + 4"]
    publish("01_x.ipynb", "1 + 1") # as the learner's was handed out
    assert update(capsys) == "" and source("01_x.2.new.ipynb") == "4 + 4"


def test_what_is_deleted_or_replaced_by_the_new_one(capsys):
    lab.update()
    for name in ["01_x.ipynb", "02_y.ipynb"]:
        touch(name)
        publish(name, "2 + 2")
    update(capsys)
    (lab.MINE/"01_x.ipynb").unlink()
    os.replace(lab.MINE/"02_y.new.ipynb", lab.MINE/"02_y.ipynb")
    assert update(capsys) == "" and source("01_x.ipynb") == source("02_y.ipynb") == "2 + 2"
    publish("02_y.ipynb", "3 + 3")
    assert update(capsys) == "" and source("02_y.ipynb") == "3 + 3"


@pytest.mark.parametrize("text", ["", '{"cells": [', "[]", '{"metadata": []}', '{"cells": 1, "metadata": {"groundup": {"digest": 1}}}', "\x00\xff"])
def test_a_broken_copy_stays(text, capsys):
    lab.update()
    (lab.MINE/"01_x.ipynb").write_text(text, encoding="latin-1")
    said = update(capsys)
    assert said.count("\n") == 1 and said.startswith("my/01_x.ipynb ") and "my/01_x.new.ipynb" in said
    assert (lab.MINE/"01_x.ipynb").read_text(encoding="latin-1") == text and source("01_x.new.ipynb") == "1 + 1" and update(capsys) == ""


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\xff"])
def test_a_broken_record_of_what_was_told(text, capsys):
    lab.update()
    touch("01_x.ipynb")
    publish("01_x.ipynb", "2 + 2")
    update(capsys)
    (lab.MINE/lab.TOLD).write_text(text, encoding="latin-1")
    first, second = update(capsys).splitlines()
    assert "could not be read and is begun afresh" in first and "my/01_x.new.ipynb" in second
    assert update(capsys) == "" and source("01_x.ipynb") == "mine"


def test_a_broken_lesson_is_left_out(capsys):
    (lab.COURSE/"01_x.ipynb").write_text('{"cells": [')
    said = update(capsys)
    assert said == "workbook/01_x.ipynb could not be read and is left out: `make workbook` makes it again.\n"
    assert set(files()) == {"02_y.ipynb", "index.ipynb", "progress.json"}


def test_no_workbook(tmp_path, capsys):
    for path in lab.COURSE.iterdir(): path.unlink()
    assert "`make workbook` makes them" in update(capsys)


def test_a_file_where_the_folder_belongs(capsys):
    lab.MINE.write_text("mine")
    assert "rename it" in update(capsys) and lab.MINE.read_text() == "mine"
    assert lab.main([]) == 1 and "There is no my/index.ipynb to open." in capsys.readouterr().err


@pytest.mark.parametrize("number", [28, 30]) # ENOSPC, EROFS
def test_nowhere_to_write(number, capsys, monkeypatch):
    lab.update()
    touch("01_x.ipynb")
    for name in NAMES: publish(name, "2 + 2")
    (lab.MINE/"progress.json").unlink()
    before = files()
    def full(path, data):
        with open(path, "wb") as file: file.write(data[:10])
        raise OSError(number, os.strerror(number), str(path))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert lab.main([]) == 0 # what is there can be opened
    names = "my/01_x.ipynb, my/02_y.ipynb, my/index.ipynb, my/progress.json"
    assert capsys.readouterr().err == f"Could not be read or written ({os.strerror(number)}), and left as it is: {names}.\n" and files() == before
    assert "my/01_x.new.ipynb" in update(capsys) and source("01_x.ipynb") == "mine" and source("02_y.ipynb") == "2 + 2"


def test_a_folder_where_a_lesson_belongs(capsys):
    (lab.MINE/"01_x.ipynb").mkdir(parents=True)
    said = update(capsys)
    assert said.startswith("Could not be read or written") and said.endswith(": my/01_x.ipynb.\n") and source("02_y.ipynb") == "1 + 1"


@pytest.mark.parametrize("place", ["os.replace", "pathlib.Path.write_bytes", "lab.say"])
def test_stopped_at_any_moment(place, capsys, monkeypatch):
    lab.update()
    touch("01_x.ipynb")
    mine = files()["01_x.ipynb"]
    for name in NAMES: publish(name, "2 + 2")
    kept, stops, done = files(), 0, False
    module, _, name = place.rpartition(".")
    target = {"os": os, "pathlib.Path": Path, "lab": lab}[module]
    real = getattr(target, name)
    while not done:
        for path in lab.MINE.iterdir(): path.unlink()
        for file, data in kept.items(): (lab.MINE/file).write_bytes(data)
        calls = 0
        def stopping(*arguments):
            nonlocal calls
            calls += 1
            if calls > stops: raise KeyboardInterrupt
            return real(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(target, name, stopping)
            try: lab.update()
            except KeyboardInterrupt: stops += 1
            else: done = True
        for copy in NAMES: nbformat.validate(read(copy))
        said = capsys.readouterr().err + update(capsys)
        assert files()["01_x.ipynb"] == mine and "my/01_x.new.ipynb" in said
        assert [source(copy) for copy in ["01_x.new.ipynb", "02_y.ipynb", "index.ipynb"]] == ["2 + 2"] * 3
        assert update(capsys) == ""
    assert stops >= 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_killed_at_any_moment(folder, capsys):
    script = f"import lab; from pathlib import Path; lab.COURSE, lab.MINE = Path({str(lab.COURSE)!r}), Path({str(lab.MINE)!r}); print(1, flush=True); lab.update()"
    for n in range(60): publish(f"{n:02}_many.ipynb", "0")
    lab.update()
    touch("30_many.ipynb")
    mine, killed = files()["30_many.ipynb"], 0
    for n in range(1, 21):
        for m in range(60): publish(f"{m:02}_many.ipynb", str(n))
        process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(top/"tools")}, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.05))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        for m in range(60): nbformat.validate(read(f"{m:02}_many.ipynb"))
        lab.update()
        assert files()["30_many.ipynb"] == mine and source("30_many.new.ipynb") == source("29_many.ipynb") == source("59_many.ipynb") == str(n)
    assert killed >= 5


# What is opened, and how

@pytest.mark.parametrize("arguments, page, others", [
    ([], "my/index.ipynb", []),
    (["--no-browser", "--port", "9999"], "my/index.ipynb", ["--no-browser", "--port", "9999"]),
    (["nbs/03_einsum.ipynb"], "nbs/03_einsum.ipynb", []),
    (["--port", "9999", "nbs/03_einsum.ipynb", "--no-browser"], "nbs/03_einsum.ipynb", ["--port", "9999", "--no-browser"]),
    (["nbs", "--no-browser"], "nbs", ["--no-browser"])])
def test_arguments(arguments, page, others, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert lab.command_line(arguments) == (folder/page, others)


def test_what_is_opened(folder, capsys, monkeypatch):
    started = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr("jupyterlab.labapp.LabApp.launch_instance", started.append)
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "theirs")
    (folder/"nbs").mkdir()
    (folder/"nbs"/"01 x.ipynb").touch()
    assert lab.main(["nbs/01 x.ipynb"]) == 0 and not lab.MINE.exists() # the lessons as written need no copies
    assert lab.main(["--no-browser"]) == 0 and set(files()) == {*NAMES, "progress.json"}
    (lab.MINE/"01_x.ipynb").unlink()
    assert lab.main(["my/02_y.ipynb"]) == 0 and (lab.MINE/"01_x.ipynb").exists()
    assert [options[:2] for options in started] == [[f"--ServerApp.root_dir={folder}", f"--LabApp.default_url=/lab/tree/{page}"]
                                                   for page in ["nbs/01%20x.ipynb", "my/index.ipynb", "my/02_y.ipynb"]]
    assert started[1][-1] == "--no-browser" and os.environ["JUPYTER_CONFIG_PATH"].endswith(os.pathsep + "theirs")
    assert lab.main(["nbs/none.ipynb"]) == 1 and capsys.readouterr().err == f"There is no {Path('nbs/none.ipynb')} to open.\n"
    assert lab.main(["../elsewhere.ipynb"]) == 1 and "is not in the course's folder" in capsys.readouterr().err
    assert len(started) == 3


WATCH = """import sys
def hook(event, arguments):
    if event in ["socket.getaddrinfo", "socket.connect"]:
        with open({!r}, "a") as file: print(event, arguments[-1] if event.endswith("connect") else arguments[0], file=file)
sys.addaudithook(hook)
"""


def asked(address):
    "What a server that is just starting answers."
    for _ in range(60):
        try: return urllib.request.urlopen(address, timeout=30).read().decode()
        except urllib.error.URLError: time.sleep(0.5)


@pytest.mark.slow
def test_jupyterlab_asks_nothing_and_nobody(tmp_path):
    folder = tmp_path/"course"
    for name in ["tools", "workbook"]: (folder/name).mkdir(parents=True)
    for path in [*(top/"tools").glob("*.py"), *(top/"tools").rglob("*.json")]:
        (folder/path.relative_to(top)).parent.mkdir(parents=True, exist_ok=True)
        (folder/path.relative_to(top)).write_bytes(path.read_bytes())
    (folder/"workbook"/"index.ipynb").write_bytes((lab.COURSE/"index.ipynb").read_bytes())
    (folder/"settings.ini").write_bytes((top/"settings.ini").read_bytes())
    (tmp_path/"watch").mkdir()
    (tmp_path/"watch"/"sitecustomize.py").write_text(WATCH.format(str(tmp_path/"asked")))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path/"watch"), "JUPYTER_DATA_DIR": str(tmp_path/"data"), "JUPYTER_CONFIG_DIR": str(tmp_path/"config"),
                   "JUPYTER_TOKEN": "secret"}
    process = subprocess.Popen([sys.executable, "tools/lab.py", "--no-browser", "--port", str(random.randint(20000, 60000))], cwd=folder, env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        home = next(found[1] for line in process.stderr if (found := re.search(r"(http://127\S+/lab)/tree/my/index.ipynb", line)))
        page, update, news = [asked(f"{home}{address}?token=secret") for address in ["/tree/my/index.ipynb", "/api/update", "/api/news"]]
    finally:
        process.terminate()
        process.communicate(timeout=30)
    config = json.loads(page.split('<script id="jupyter-config-data" type="application/json">')[1].split("</script>")[0])
    assert "@jupyterlab/apputils-extension:announcements" in config["disabledExtensions"]
    assert json.loads(update) == {"notification": None} and json.loads(news) == {"news": []}
    others = [line for line in (tmp_path/"asked").read_text().splitlines() if not re.search(r"localhost|127\.0\.0\.1|::1", line)]
    assert not others


def test_git_sees_nothing_of_a_learner_s_copies(): assert "/my/" in (top/".gitignore").read_text().splitlines()


# The commands of make

@needs_make
def test_make_passes_arguments_on():
    last = lambda *arguments: make(top, "-n", *arguments).stdout.splitlines()[-1]
    assert last("lab", "ARGS=--no-browser --port 9999").endswith("python tools/lab.py --no-browser --port 9999")
    assert last("workbook", "ARGS=--teacher source").endswith("python tools/workbook.py --teacher source")
    assert last("refresh").endswith("python tools/workbook.py")


@needs_make
def test_make_grades_what_is_the_learner_s(tmp_path):
    folder = project(tmp_path/"project")
    (folder/"my").mkdir()
    for name in ["02_y.ipynb", "01_x.ipynb", "01_x.new.ipynb", "01_x.2.new.ipynb", "index.ipynb", "Untitled.ipynb"]: (folder/"my"/name).touch()
    last = lambda *arguments: make(folder, "-n", *arguments).stdout.splitlines()[-1]
    assert last("grade").endswith("python -m groundup.checks my/01_x.ipynb my/02_y.ipynb")
    assert last("grade", "ARGS=my/02_y.ipynb --json").endswith("python -m groundup.checks my/02_y.ipynb --json")


@needs_make
def test_status_before_there_is_any(tmp_path):
    folder = project(tmp_path/"project")
    (folder/".venv").mkdir()
    (folder/".venv"/".ready").touch()
    for name in ["settings.ini", "setup.py", "constraints.txt"]: os.utime(folder/name, (0, 0))
    said = make(folder, "status")
    assert said.returncode != 0 and said.stdout.splitlines()[0] == "You have no copies of the lessons yet: `make lab` makes them."
