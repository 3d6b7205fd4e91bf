"The set-up that make does: too old a Python, no network, one more package index, and kills at random moments."
import os, random, subprocess, sys, sysconfig, time

import pytest
from scaffold import change, kill, make, needs_make, project, wheel, wheel_of_setuptools

pytestmark = needs_make
PYTHON = f"PYTHON={sys.executable}"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    "A folder in which pip finds all that the small project needs."
    folder = tmp_path_factory.mktemp("wheels")
    wheel_of_setuptools(folder)
    wheel(folder, "brick", "1", brick="number = 1")
    return folder


def offline(wheels, **more):
    "The variables with which pip sees `wheels`, and no network."
    return {"PIP_CONFIG_FILE": os.devnull, "PIP_CONSTRAINT": "", "PIP_FIND_LINKS": str(wheels), "PIP_NO_INDEX": "1"} | more


def number(folder):
    "What the installed brick says, to a Python that must see the package of the project, too."
    return subprocess.run([folder/".venv"/"bin"/"python", "-c", "import brick, tiny; print(brick.number)"], cwd=folder.parent,
                          capture_output=True, text=True, check=True).stdout.strip()


def is_ready(folder):
    "Whether the last set-up or update went to its end."
    return make(folder, "-q", "setup").returncode == 0 and not (folder/".venv"/".begun").exists()


@pytest.fixture(scope="module")
def kept(tmp_path_factory, wheels):
    "A project that is set up, and borrows pip and setuptools from here, which is quick; its `make run` needs no packages."
    folder = project(tmp_path_factory.mktemp("kept")/"project")
    (folder/"tools"/"run.py").write_text("print('it ran')")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder/".venv"], check=True)
    site, = (folder/".venv"/"lib").glob("python*/site-packages")
    (site/"borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (folder/".venv"/".ready").touch()
    change(folder, "constraints.txt", "brick==1\n")
    done = make(folder, "setup", **offline(wheels))
    assert done.returncode == 0 and is_ready(folder) and number(folder) == "1", done.stdout
    return folder


@pytest.fixture
def ready(kept):
    "The same, with something in .venv that shows whether it is the same .venv afterwards."
    (kept/".venv"/"mine").touch()
    yield kept
    assert (kept/".venv"/"mine").exists(), "the environment was removed"
    (kept/"constraints.txt").write_text("brick==1\n")


@pytest.mark.slow
def test_an_interrupted_set_up_is_started_afresh(tmp_path, wheels):
    folder = project(tmp_path/"project")
    (folder/".venv"/"lib").mkdir(parents=True)
    for name in ["lib/left", ".begun"]: (folder/".venv"/name).touch()
    done = make(folder, "setup", PYTHON, **offline(wheels))
    assert done.returncode == 0 and is_ready(folder) and number(folder) == "1", done.stdout
    assert not (folder/".venv"/"lib"/"left").exists()


@pytest.mark.slow
def test_an_environment_made_by_hand_is_added_to(tmp_path, wheels):
    folder = project(tmp_path/"project")
    (folder/".venv").mkdir()
    (folder/".venv"/"mine").touch()
    assert make(folder, "setup", PYTHON, **offline(tmp_path)).returncode != 0 # nothing to install from
    assert make(folder, "setup", PYTHON, **offline(wheels)).returncode == 0
    assert is_ready(folder) and number(folder) == "1" and (folder/".venv"/"mine").exists()


def test_a_change_that_needs_no_package_needs_no_network(ready, tmp_path):
    change(ready, "settings.ini", (ready/"settings.ini").read_text() + "# a remark\n")
    done = make(ready, "run", **offline(tmp_path))
    assert done.returncode == 0 and done.stdout.endswith("it ran\n"), done.stdout
    assert is_ready(ready)


def test_what_cannot_be_brought_up_to_date_is_used_as_it_is(ready, wheels):
    change(ready, "constraints.txt", "brick==2\n")
    for _ in range(2):
        done = make(ready, "run", **offline(wheels))
        assert done.returncode == 0 and done.stdout.endswith("it ran\n"), done.stdout
        assert "Changed since .venv was set up: constraints.txt." in done.stdout and "not installed: brick==2\n" in done.stdout
    assert make(ready, "setup", **offline(wheels)).returncode != 0
    assert number(ready) == "1"


def test_one_more_index(ready, wheels, tmp_path):
    (tmp_path/"brick").mkdir()
    wheel(tmp_path/"brick", "brick", "2", brick="number = 2")
    (tmp_path/"brick"/"index.html").write_text('<a href="brick-2-py3-none-any.whl">brick</a>')
    index = {"PIP_NO_INDEX": "", "PIP_INDEX_URL": (tmp_path/"none").as_uri()}
    change(ready, "constraints.txt", "brick==2\n")
    done = make(ready, "setup", f"INDEX={tmp_path.as_uri()}", **offline(wheels, **index))
    assert done.returncode == 0 and number(ready) == "2", done.stdout
    again = make(ready, "setup", f"INDEX={tmp_path.as_uri()}", **offline(wheels, **index))
    assert again.returncode == 0 and "INDEX has no effect on what is installed already" in again.stdout


def test_the_first_set_up_asks_one_more_index(tmp_path):
    folder = project(tmp_path/"project")
    said = make(folder, "-n", "setup", "INDEX=https://index.example/cpu").stdout
    assert "pip install" in said and "--extra-index-url https://index.example/cpu" in said and "no effect" not in said
    assert "index.example" not in make(folder, "-n", "setup", INDEX="https://index.example/cpu").stdout # somebody else's variable


def test_a_package_that_was_cut_off_is_installed_again(ready, wheels):
    site, = (ready/".venv"/"lib").glob("python*/site-packages")
    for path in [site/"brick-1.dist-info"/"RECORD", *site.glob("brick.py"), *site.glob("brick-2.dist-info/RECORD")]: path.unlink(missing_ok=True)
    change(ready, "settings.ini", (ready/"settings.ini").read_text())
    done = make(ready, "setup", **offline(wheels))
    assert done.returncode == 0 and number(ready) == "1", done.stdout


def test_too_old_a_python_is_told_so_at_once(tmp_path):
    folder = project(tmp_path/"project")
    change(folder, "settings.ini", (folder/"settings.ini").read_text().replace("min_python = 3.11", "min_python = 4.2"))
    version = sys.version.split()[0]
    said = make(folder, "lab", PYTHON)
    assert said.returncode != 0 and f"Python {version} is too old: the course needs 4.2 or later" in said.stdout
    assert not (folder/".venv").exists()
    said = subprocess.run([sys.executable, "setup.py", "--version"], cwd=folder, capture_output=True, text=True) # what pip asks first
    assert said.returncode != 0 and f"Python {version} is too old: tiny needs 4.2 or later" in said.stderr


@pytest.mark.slow
def test_killed_while_it_is_made(tmp_path, wheels):
    folder, killed = project(tmp_path/"project"), 0
    start = time.monotonic()
    assert make(folder, "setup", PYTHON, **offline(wheels)).returncode == 0
    whole = time.monotonic() - start
    for moment in (random.uniform(0, whole) for _ in range(10)):
        subprocess.run(["rm", "-r", ".venv"], cwd=folder, check=True)
        killed += kill(folder, moment, "setup", PYTHON, **offline(wheels))
        done = make(folder, "setup", PYTHON, **offline(wheels))
        assert done.returncode == 0 and is_ready(folder) and number(folder) == "1", f"killed after {moment:.2f} s of {whole:.2f}: {done.stdout}"
    assert killed >= 5


@pytest.mark.slow
def test_killed_while_it_is_brought_up_to_date(ready, wheels, tmp_path):
    wheel(tmp_path, "brick", "2", brick="number = 2")
    both, killed, whole = {"PIP_FIND_LINKS": f"{wheels} {tmp_path}"}, 0, None
    for version, moment in enumerate([None, *(random.random() for _ in range(10))]):
        wanted = str(1 + version % 2)
        change(ready, "constraints.txt", f"brick=={wanted}\n")
        start = time.monotonic()
        if moment is not None: killed += kill(ready, moment * whole, "setup", **offline(wheels, **both))
        done = make(ready, "setup", **offline(wheels, **both))
        whole = whole or time.monotonic() - start
        assert done.returncode == 0 and is_ready(ready) and number(ready) == wanted, f"killed at {moment} of {whole:.2f} s: {done.stdout}"
    assert killed >= 5
