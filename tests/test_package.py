"The package as somebody else gets it: built, installed in a new environment, and imported there."
import ast, importlib, inspect, pkgutil, re, shutil, subprocess, sys, sysconfig
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
import groundup
from project import cfg, top

modules = sorted(module.name.removeprefix("groundup.") for module in pkgutil.walk_packages(groundup.__path__, "groundup.") if not module.ispkg and "._" not in module.name)


def source(module):
    "The source of a module of the package, such as `matmul` or `exercises.matmul`."
    return (top/"groundup"/f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "The wheel, built from the source distribution, built from a copy: so neither needs a file that it lacks."
    folder = tmp_path_factory.mktemp("build")
    copy = folder/"project"
    shutil.copytree(top, copy, ignore=shutil.ignore_patterns(".*", "_build", "build", "dist", "*.egg-info", "__pycache__"))
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(copy)], check=True, capture_output=True)
    found, = folder.glob("*.whl")
    return found


def test_wheel_says_what_settings_say(wheel):
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        said = Parser().parsestr(archive.read(next(name for name in names if name.endswith("METADATA"))).decode())
    assert said["Version"] == cfg["version"] == groundup.__version__
    assert said["Requires-Python"] == f">={cfg['min_python']}"
    needed = {Requirement(line) for line in said.get_all("Requires-Dist") if "extra ==" not in line}
    assert needed == set(map(Requirement, cfg["requirements"].split()))
    named = set(",".join(re.findall(r"(?:groundup|\.)\[([\w,]+)\]", (top/"README.md").read_text(encoding="utf-8"))).split(","))
    assert named == {"dev", "digits", "plots"} and named <= set(said.get_all("Provides-Extra", [])), f"README.md installs with the extras {named}"
    assert cfg["license"] in (said["License"], said["License-Expression"])
    assert said["Keywords"].replace(",", " ").split() == cfg["keywords"].split()
    assert any(line.startswith("Intended Audience") for line in said.get_all("Classifier"))
    assert any(name.endswith("LICENSE") for name in names)
    assert {f"groundup/{module.replace('.', '/')}.py" for module in modules} <= set(names)


def test_wheel_works_in_a_new_environment(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path/"new")], check=True)
    python = str(tmp_path/"new"/("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    site = Path(subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True).stdout.strip())
    # torch and the like are borrowed from here; the editable install of groundup is not, for a path in a .pth runs no other .pth
    (site/"borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    code = f"""
import importlib, pathlib, torch, groundup
assert pathlib.Path(groundup.__file__).parent == pathlib.Path({str(site/'groundup')!r}), groundup.__file__
for module in {modules!r}: importlib.import_module("groundup." + module)
from groundup.einsum import einsum
from groundup.broadcasting import broadcast_shape
from groundup.matmul import matmul_lists
assert einsum("ij->", torch.ones(2, 3)) == 6 and broadcast_shape((2, 1), (3,)) == (2, 3) and matmul_lists([[2]], [[3]]) == [[6]]
"""
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path)


def test_imports_stay_small():
    code = """if True:
        import importlib, sys, torch
        for module in sys.argv[1:]:
            before = set(sys.modules)
            importlib.import_module(f"groundup.{module}")
            print(module, *{name.split(".")[0] for name in set(sys.modules) - before})"""
    ordered = [*(module for module in modules if module != "plots"), "plots"] # which alone may import matplotlib
    for line in subprocess.run([sys.executable, "-c", code, *ordered], capture_output=True, text=True, check=True).stdout.splitlines():
        module, *added = line.split()
        unwanted = {"matplotlib", "sympy", "sklearn", "scipy", "IPython", "fastcore", "nbdev"} - ({"matplotlib"} if module == "plots" else set())
        assert not unwanted & set(added), f"groundup.{module} imports {unwanted & set(added)}"


@pytest.mark.parametrize("module", modules)
def test_public_names_are_documented(module):
    loaded = importlib.import_module(f"groundup.{module}")
    for name in loaded.__all__:
        if callable(getattr(loaded, name)): assert inspect.getdoc(getattr(loaded, name)), f"{module}.{name}"


@pytest.mark.parametrize("module", modules)
def test_imports_run_one_way(module):
    "A module may import from lessons before its own and from the appendix, and public names only."
    def lesson(name): return int(re.search(r"nbs/(?:exercises/)?(\d+)_", source(name))[1])
    exercises = module.startswith("exercises.") # may use their lesson, too
    for node in ast.walk(ast.parse(source(module))):
        if not isinstance(node, ast.ImportFrom) or node.level == 0 and node.module.split(".")[0] != "groundup": continue
        name = node.module.removeprefix("groundup.")
        assert lesson(name) < lesson(module) + exercises or lesson(name) >= 90, f"{module} imports {name}, which comes later"
        private = [alias.name for alias in node.names if alias.name.startswith("_")]
        assert not private, f"{module} imports {private} of {name}"


def test_shapes_imports_nothing_of_the_package():
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(ast.parse(source("shapes"))))
