"A small project with the Makefile and the tools of this one, to set up, run, kill and merge in."
import os, shutil, signal, subprocess, sys, time, zipfile
from importlib.metadata import distribution
from pathlib import Path

import nbformat, pytest
from project import top

needs_make = pytest.mark.skipif(sys.platform == "win32" or not shutil.which("make"), reason="needs make and a POSIX system")
SETTINGS = """[DEFAULT]
lib_name = tiny
lib_path = tiny
nbs_path = nbs
version = 1
author = us
language = English
min_python = 3.11
requirements = {requirements}
plots_requirements =
digits_requirements =
dev_requirements = setuptools>=77
allowed_metadata_keys = groundup
allowed_cell_metadata_keys =
{rest}"""
REST = "\n".join(f"{key} = Education" for key in """description keywords author_email license status audience user repo branch
    git_url colab_url binder_url codespaces_url title copyright doc_path doc_host doc_baseurl""".split())


def project(folder: Path) -> Path:
    "A project in the new `folder`: no lessons, and a package `tiny` that needs the package `brick`."
    shutil.copytree(top/"tools", folder/"tools", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ["Makefile", "setup.py", "pyproject.toml", ".gitattributes", ".gitconfig", ".gitignore"]: shutil.copy(top/name, folder/name)
    (folder/"settings.ini").write_text(SETTINGS.format(requirements="brick", rest=REST))
    for name, text in {"constraints.txt": "brick==1\n", "README.md": "", "LICENSE": ""}.items(): (folder/name).write_text(text)
    (folder/"tiny").mkdir()
    (folder/"tiny"/"__init__.py").write_text('__version__ = "1"\n')
    (folder/"nbs").mkdir()
    return folder


def notebook(path: Path, *cells: str):
    "Writes a notebook: what begins with # and a space is Markdown."
    make = lambda text: (nbformat.v4.new_markdown_cell if text.startswith(("# ", "<!--")) else nbformat.v4.new_code_cell)(text)
    nbformat.write(nbformat.v4.new_notebook(cells=list(map(make, cells))), path)


def borrow_environment(folder: Path):
    "Lets the project in `folder` use the packages and commands of the tests' own environment, as if it had been set up with them."
    (folder/".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if not path.name.startswith("."): (folder/".venv"/path.name).symlink_to(path)
    (folder/".venv"/".ready").touch()


def wheel(folder: Path, name: str, version: str, **modules: str):
    "Puts a wheel with these modules into `folder`."
    files = {f"{module}.py": code for module, code in modules.items()}
    info = f"{name}-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder/f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for file, text in files.items(): archive.writestr(file, text)


def wheel_of_setuptools(folder: Path):
    "Puts a wheel of the installed setuptools into `folder`: pip builds an editable install with it."
    found = distribution("setuptools")
    with zipfile.ZipFile(folder/f"setuptools-{found.version}-py3-none-any.whl", "w") as archive:
        for file in found.files:
            if ".." not in file.parts and file.suffix != ".pyc": archive.write(file.locate(), file.as_posix())


def environment(**variables: str) -> dict[str, str]:
    "The environment without what an outer make has told its children, and with `variables`."
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "IN_TEST"))} | variables


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    "What `make` says in `folder`, both streams together."
    return subprocess.run(["make", *arguments], cwd=folder, env=environment(**variables), text=True, timeout=300,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def change(folder: Path, name: str, text: str):
    "Changes the file `name` after the set-up, and no other since."
    now = time.time()
    for file in ["settings.ini", "setup.py", "constraints.txt"]: os.utime(folder/file, (now - 3600,) * 2)
    if (folder/".venv"/".ready").exists(): os.utime(folder/".venv"/".ready", (now - 1800,) * 2)
    (folder/name).write_text(text)


def kill(folder: Path, moment: float, *arguments: str, **variables: str) -> bool:
    "Starts `make`, kills it with all that it has started after `moment` seconds, and says whether that stopped it."
    process = subprocess.Popen(["make", *arguments], cwd=folder, env=environment(**variables), start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(moment)
    stopped = process.poll() is None
    if stopped: os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return stopped
