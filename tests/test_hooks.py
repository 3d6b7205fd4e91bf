"`make hooks` in a clone whose environment is not activated: notebooks merge, and conflicts can be read."
import json, os, subprocess, sys
from pathlib import Path

import pytest
from scaffold import borrow_environment, environment, make, needs_make, notebook, project

pytestmark = needs_make
ME = dict(GIT_AUTHOR_NAME="me", GIT_AUTHOR_EMAIL="me@example.org", GIT_COMMITTER_NAME="me", GIT_COMMITTER_EMAIL="me@example.org", GIT_CONFIG_NOSYSTEM="1")
LESSON = Path("nbs")/"01_one.ipynb"


@pytest.fixture
def git(tmp_path):
    "Runs git in a repository with hooks, in a folder with a space in its name; no command of the environment is on the path."
    folder = project(tmp_path/"a clone")
    commands = str(Path(sys.executable).parent)
    plain = dict(ME, HOME=str(tmp_path), PATH=os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != commands))

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=folder, env=environment(**plain), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    git.folder = folder
    notebook(folder/LESSON, "# One\n\n> It says.", "1 + 1")
    for arguments in [["init", "-b", "main"], ["add", "-A"], ["commit", "-m", "published"]]: assert git(*arguments).returncode == 0
    borrow_environment(folder)
    done = make(folder, "hooks", **plain)
    assert done.returncode == 0, done.stdout
    assert git("status", "--porcelain").stdout == "" # full paths stay out of what is committed
    return git


def both_change(git, ours, theirs):
    "Lets `ours` and `theirs` change the notebook, each on a branch, and merges."
    def commit(change):
        nb = json.loads((git.folder/LESSON).read_bytes())
        change(nb)
        (git.folder/LESSON).write_text(json.dumps(nb, indent=1))
        assert git("commit", "-a", "-m", "change").returncode == 0
    git("checkout", "-b", "theirs")
    commit(theirs)
    git("checkout", "main")
    commit(ours)
    return git("merge", "theirs"), json.loads((git.folder/LESSON).read_bytes())


def output(text):
    "Gives the code cell an output, and the notebook a digest."
    def change(nb):
        nb["cells"][1]["outputs"] = [{"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": {"text/plain": [text]}}]
        nb["metadata"]["groundup"] = {"digest": text}
    return change


def test_outputs_in_conflict_merge(git):
    done, nb = both_change(git, output("ours"), output("theirs"))
    assert done.returncode == 0, done.stdout
    assert nb["cells"][1]["outputs"][0]["data"]["text/plain"] == ["ours"] and len(nb["cells"]) == 2
    assert "not found" not in done.stdout and git("status", "--porcelain").stdout == ""


def test_code_in_conflict_can_be_read(git):
    def code(text):
        def change(nb): nb["cells"][1]["source"] = [text]
        return change
    done, nb = both_change(git, code("1 + 2"), code("1 + 3"))
    assert done.returncode != 0 and "CONFLICT" in done.stdout
    sources = ["".join(cell["source"]) for cell in nb["cells"]]
    assert sources[1].startswith("`<<<<<<<") and sources[2] == "1 + 2" and sources[4] == "1 + 3" and sources[5].startswith("`>>>>>>>")
