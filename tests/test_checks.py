"The checks of the exercises: each right answer passes, and each mistake is recognised as what it is."
import contextlib, io, json, re, subprocess, sys
from inspect import getdoc
from pathlib import Path

import numpy as np, nbformat, pytest, torch
from groundup import checks
from groundup.checks import CheckFailed, Exercise, Untouched
from project import top

LESSONS = checks._lessons()
EXERCISES = [getattr(checks, f"check_{name}") for names in LESSONS.values() for name in names]
lessons = {path.stem: nbformat.read(path, as_version=4) for path in sorted((top/"nbs").glob("[0-8]*.ipynb"))}
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


def refused(exercise, answer, kind=CheckFailed):
    "What the check of `exercise` prints and raises for `answer`."
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(kind) as raised: exercise(answer)
    return printed.getvalue(), str(raised.value)


def modified(exercise, change):
    "Outcomes of the reference with `change` made to each value; None if it changes nothing."
    expected = exercise.outcomes(exercise.reference)
    given = [o if o.error else o._replace(value=change(o.value)) for o in expected]
    return given, expected


def filled(number):
    def fill(x):
        if hasattr(x, "new_full"): return x.new_full(x.shape, number)
        if isinstance(x, np.ndarray): return np.full_like(x, number)
        if isinstance(x, (list, tuple)): return type(x)(map(fill, x))
        if isinstance(x, dict): return type(x)({key: fill(value) for key, value in x.items()})
        return type(x)(number)
    return fill


def data(value): # a tensor, an array, a number, or lists of them
    if isinstance(value, dict): return all(map(data, value.values()))
    return hasattr(value, "shape") or checks._kind(value) == "a number" or isinstance(value, (list, tuple)) and all(map(data, value))


def test_each_lesson_has_three_to_five():
    assert list(LESSONS) == list(lessons), "lessons without exercises, or the other way round"
    for lesson, names in LESSONS.items(): assert 3 <= len(names) <= 5, f"{lesson}: {names}"


def test_names_are_used_once():
    names = [exercise.name for exercise in EXERCISES]
    assert len(set(names)) == len(names) >= 3


@each_exercise
def test_right_answers_pass(exercise):
    assert len(exercise.right) >= 2, "it needs right answers of two forms at least"
    for answer in exercise.right:
        with contextlib.redirect_stdout(io.StringIO()) as printed: exercise(answer)
        assert re.match(rf"{exercise.name}: all \d+ cases are right\. \S", printed.getvalue())


@each_exercise
def test_a_stub_is_untouched(exercise):
    def stub(*arguments): raise NotImplementedError
    if isinstance(exercise.reference, type): stub = unfinished(exercise.reference)
    assert refused(exercise, stub, Untouched) == ("", f"{exercise.name} is still to be written")


def unfinished(kind):
    "The class `kind`, with methods that are still to be written."
    def body(*arguments, **settings): raise NotImplementedError
    methods = {name: staticmethod(body) if isinstance(member, staticmethod) else body
               for name, member in vars(kind).items() if callable(member) or isinstance(member, staticmethod)}
    return type(kind.__name__, kind.__bases__, methods)


@each_exercise
def test_each_mistake_is_recognised(exercise):
    assert len(exercise.mistakes) >= 3
    sentences = [getdoc(mistake) for mistake in exercise.mistakes]
    assert len(set(sentences)) == len(sentences)
    for mistake in exercise.mistakes:
        printed, raised = refused(exercise, mistake)
        sentence = getdoc(mistake)
        assert len(sentence) > 30 and sentence.endswith(".") and sentence in printed, f"{mistake.__name__}: {printed}"
        found = exercise.diagnoses(exercise.outcomes(mistake), exercise.outcomes(exercise.reference))
        assert found == [sentence], f"{mistake.__name__} is taken for {found}"


def first_wrong(exercise, given, expected):
    return next(filter(None, map(exercise.wrong, expected, given)), "")


@each_exercise
@pytest.mark.parametrize("number", [0, 1])
def test_constants_are_refused(exercise, number):
    given, expected = modified(exercise, lambda value: filled(number)(value) if data(value) else value)
    if not all(data(o.value) and checks._numbers(o.value) for o in expected): pytest.skip("its answers hold no numbers")
    assert first_wrong(exercise, given, expected)
    assert exercise.diagnoses(given, expected), "refused without a word on why"


@each_exercise
def test_a_transpose_is_refused(exercise):
    transposed = lambda x: x.T if hasattr(x, "T") else [list(column) for column in zip(*x)]
    matrix = lambda x: hasattr(x, "ndim") and x.ndim == 2 or isinstance(x, list) and x and all(isinstance(row, list) and row for row in x)
    expected = exercise.outcomes(exercise.reference)
    if not all(matrix(o.value) for o in expected): pytest.skip("its answers are not matrices")
    given, expected = modified(exercise, transposed)
    if all(checks._same(*pair, exercise.tolerance) for pair in zip(given, expected)): pytest.skip("its answers are symmetric")
    assert first_wrong(exercise, given, expected) and len(exercise.diagnoses(given, expected)) == 1


@each_exercise
def test_rank_and_dtype_are_compared(exercise):
    "An axis too many, the other dtype, and a list in place of a tensor are refused with words of their own."
    changes = [(lambda x: x[None], "its shape is"), (lambda x: x.double() if x.dtype == torch.float32 else x.float(), "its dtype is"), (lambda x: x.tolist(), "not a tensor")]
    if not any(isinstance(o.value, torch.Tensor) for o in exercise.outcomes(exercise.reference)): pytest.skip("its answers are not tensors")
    for change, words in changes:
        given, expected = modified(exercise, lambda value: change(value) if isinstance(value, torch.Tensor) else value)
        assert words in first_wrong(exercise, given, expected)


@each_exercise
def test_arguments_must_stay(exercise):
    def changes_its_arguments(*arguments):
        result = exercise.reference(*arguments)
        for x in arguments:
            if hasattr(x, "shape") and x.ndim: x[...] = x + 1
            elif isinstance(x, list) and x: x[0] = None
        return result
    if not exercise.plainly or not any(hasattr(x, "shape") and x.ndim or isinstance(x, list) and x for x in next(iter(exercise.cases()))):
        pytest.skip("its arguments cannot be changed")
    with torch.no_grad(): assert "it changes its argument " in refused(exercise, changes_its_arguments)[1]


@each_exercise
def test_the_cases_are_the_same_each_time(exercise):
    for one, other in zip(exercise.cases(), exercise.cases()):
        assert [repr(x) for x in one if not callable(x)] == [repr(x) for x in other if not callable(x)]


# Where the exercises stand in the lessons

def parts(lesson, name):
    "Task, solution, check and hints of the exercise `name` in a lesson: four cells that follow each other."
    cells = lessons[lesson].cells
    at, = [n for n, cell in enumerate(cells) if cell.source.startswith(f"check_{name}({name})")]
    return cells[at - 2:at + 2]


@pytest.mark.parametrize("lesson, name", [(lesson, name) for lesson, names in LESSONS.items() for name in names])
def test_its_four_cells(lesson, name):
    task, solution, check, hints = parts(lesson, name)
    assert re.match(r"### Your turn: .+\n\*\d+ minutes, (a warm-up|easy|medium|hard|a challenge)\.\* \S", task.source)
    assert re.search(rf"^(def|class) {name}\b", solution.source, re.M) and solution.metadata == {"jupyter": {"source_hidden": True}}
    assert solution.source.count("# BEGIN SOLUTION") == solution.source.count("# END SOLUTION") >= 1
    assert hints.source.count("<details><summary>Hint") == 3 == hints.source.count("</details>")
    for n, title in enumerate(["the idea", "the shapes", "the line"], 1): assert f"Hint {n}: {title}</summary>\n\n" in hints.source
    assert min(map(len, re.split(r"<details>.*</summary>", hints.source)[1:])) > 30
    assert "all " in check.outputs[0].text


@pytest.mark.parametrize("lesson, names", LESSONS.items())
def test_a_lesson_shows_all_of_them_in_order(lesson, names):
    shown = re.findall(r"^check_(\w+)\(\1\)", "\n".join(cell.source for cell in lessons[lesson].cells if cell.cell_type == "code"), re.M)
    assert shown == names


# What learners do

def test_words_for_each_kind_of_answer():
    exercise = getattr(checks, "check_matrix_times_vector")
    assert refused(exercise, 3.0)[1].startswith("matrix_times_vector is a number; pass the function itself")
    assert "must take (a, v), but it takes (a)" in refused(exercise, lambda a: a)[1]
    printed, raised = refused(exercise, lambda a, v: 1 / 0)
    assert "1 / 0" in printed and "ZeroDivisionError: division by zero" in raised
    assert "it is None, not a list" in refused(exercise, lambda a, v: None)[1]
    assert "Every number of it is 0." in refused(exercise, lambda a, v: [0] * len(a))[0]


def test_a_function_written_in_c_is_an_answer_too():
    def product(a, v): return a @ v
    exercise = Exercise(product, lambda: [(torch.eye(2), torch.ones(2))])
    exercise(torch.mv) # which does not tell its signature
    assert "its values are wrong" not in refused(exercise, torch.dot)[1] # it raises


def test_a_loop_without_end_is_stopped():
    def endless(n):
        while True: pass
    def one(n): return n
    assert "more than 0.2 seconds" in refused(Exercise(one, lambda: [(1,)], seconds=0.2), endless)[1]


def test_what_was_wrong_before_the_time_ran_out_is_told():
    def slow(n):
        while n > 1: pass
        return 2
    def one(n): return n
    assert "case 1 of 2 is wrong: it is 2, not 1" in refused(Exercise(one, lambda: [(1,), (2,)], seconds=0.2), slow)[1]


def test_the_line_is_the_learners_own():
    def parsed(text): return json.loads(text) # raises within a library
    def one(text): return 1
    assert "json.loads(text) # raises within" in refused(Exercise(one, lambda: [("{",)]), parsed)[0]


def test_an_error_can_be_what_is_expected():
    def positive(n):
        if n < 0: raise ValueError("negative")
        return n
    exercise = Exercise(positive, lambda: [(1,), (-1,)])
    assert "it must raise ValueError here, and returns" in refused(exercise, lambda n: n)[1]
    def other(n): return n if n > 0 else {}[n]
    assert "it raises KeyError" in refused(exercise, other)[1]


def test_a_traceback_of_one_line(): assert CheckFailed("wrong")._render_traceback_() == ["CheckFailed: wrong"]


def test_unknown_names_are_told():
    with pytest.raises(AttributeError, match="has no check_matmul_jik; is it check_matmul_ikj?"): checks.check_matmul_jik


def test_progress(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exercise = getattr(checks, "check_matmul_ikj")
    exercise(exercise.reference)
    assert not list(tmp_path.iterdir()) # only a learner's folder keeps progress
    (tmp_path/"progress.json").write_text("{}")
    refused(exercise, exercise.mistakes[0])
    refused(getattr(checks, "check_matmul_blocks"), lambda a, b, size: [][0])
    assert json.loads((tmp_path/"progress.json").read_text()) == {"matmul_ikj": "tried", "matmul_blocks": "tried"}
    exercise(exercise.reference)
    refused(exercise, exercise.mistakes[0]) # what was passed once stays passed
    assert json.loads((tmp_path/"progress.json").read_text())["matmul_ikj"] == "passed"
    capsys.readouterr()
    checks.status()
    shown = capsys.readouterr().out
    assert "[x] matmul_ikj" in shown and "[/] matmul_blocks" in shown and f"1 of {len(EXERCISES)} passed" in shown


def test_broken_progress_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exercise = getattr(checks, "check_matmul_ikj")
    for n in (1, 2):
        (tmp_path/"progress.json").write_text('{"matmul_ikj": "pas')
        exercise(exercise.reference)
        assert f"kept as progress.broken-{n}.json" in capsys.readouterr().out
        assert (tmp_path/f"progress.broken-{n}.json").read_text() == '{"matmul_ikj": "pas'
    assert json.loads((tmp_path/"progress.json").read_text()) == {"matmul_ikj": "passed"}


def test_a_full_disk_costs_the_note_alone(tmp_path, monkeypatch, capsys):
    def full(*arguments): raise OSError(28, "No space left on device")
    monkeypatch.chdir(tmp_path)
    (tmp_path/"progress.json").write_text('{"matmul_blocks": "passed"}')
    monkeypatch.setattr(checks.os, "replace", full)
    exercise = getattr(checks, "check_matmul_ikj")
    exercise(exercise.reference)
    said = capsys.readouterr().out
    assert "The result could not be saved: No space left on device." in said and "all 5 cases are right" in said
    assert (tmp_path/"progress.json").read_text() == '{"matmul_blocks": "passed"}'


def test_a_report_for_the_one_who_grades(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDUP_REPORT", str(tmp_path/"report"))
    exercise = getattr(checks, "check_matmul_ikj")
    exercise(exercise.reference)
    refused(exercise, exercise.mistakes[0])
    lines = [json.loads(line) for line in Path(tmp_path/"report").read_text().splitlines()]
    assert [line[:2] for line in lines] == [["matmul_ikj", "passed"], ["matmul_ikj", "tried"]]


# Grading

def graded(tmp_path, *cells, name="01_matmul.ipynb", seconds=20.0):
    "What `grade` finds in a notebook with these code cells."
    path = tmp_path/name
    source = ["from groundup.checks import check_matmul_blocks, check_matmul_ikj, check_matrix_times_vector, check_neurons_in_rows", *cells]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in source])
    nbformat.write(nb, path)
    before = path.read_bytes()
    result = checks.grade(path, seconds)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [name]
    return result


RIGHT = "def matrix_times_vector(a, v): return [sum(map(lambda i, j: i * j, row, v)) for row in a]"
WRONG = "def matmul_ikj(a, b): return [[0] * len(b[0]) for _ in a]"
STUB = "def matmul_blocks(a, b, size):\n    raise NotImplementedError"


def test_grade(tmp_path):
    result = graded(tmp_path, RIGHT, "check_matrix_times_vector(matrix_times_vector)", WRONG, "check_matmul_ikj(matmul_ikj)", STUB,
                    "check_matmul_blocks(matmul_blocks)")
    assert result.lesson == "01_matmul" and result.ran == 3 and not result.error
    assert {name: state for name, (state, _) in result.exercises.items()} == {
        "neurons_in_rows": "untouched", "matrix_times_vector": "passed", "matmul_ikj": "tried", "matmul_blocks": "untouched"}
    assert "its check cell is missing" in str(result) and "matmul_blocks is still to be written" in str(result)
    assert "[x] matrix_times_vector: all 6 cases are right." in str(result) and str(result).startswith("01_matmul: 1 of 4 passed")


def test_grade_goes_on_after_what_goes_wrong(tmp_path):
    result = graded(tmp_path, "while True: pass", "1 / 0", "check_neurons_in_rows(neuron_in_rows)", RIGHT, "check_matrix_times_vector(matrix_times_vector)",
                    "check_matrix_times_vector(matrix_times_vector)", "import os\nos._exit(1)", "check_matmul_ikj(None)", seconds=2)
    assert result.exercises["matrix_times_vector"] == ("passed", "matrix_times_vector: all 6 cases are right. (It is checked 2 times; the last counts.)")
    assert result.exercises["neurons_in_rows"] == ("untouched", "the kernel died before this check was reached")
    assert result.exercises["matmul_ikj"][1] == "the kernel died before this check was reached"


def test_grade_tells_a_missing_name(tmp_path):
    assert graded(tmp_path, "check_matmul_ikj(matmul_ijk)").exercises["matmul_ikj"] == ("untouched", "matmul_ikj: NameError: name 'matmul_ijk' is not defined")


def test_what_cannot_be_graded(tmp_path, capsys):
    (tmp_path/"broken.ipynb").write_text('{"cells": [')
    (tmp_path/"own.ipynb").write_text(nbformat.writes(nbformat.v4.new_notebook()))
    paths = [str(tmp_path/name) for name in ["broken.ipynb", "own.ipynb", "missing.ipynb"]]
    assert checks.main(paths) == 1
    said = capsys.readouterr().out
    for words in ["with your rights", "broken.ipynb is not a notebook, or is damaged", "own.ipynb is not one of the course's", "missing.ipynb: there is no such", "No check has run."]:
        assert words in said
    assert checks.main(["--json", *paths]) == 1
    assert json.loads(capsys.readouterr().out)[paths[0]]["error"].endswith("damaged")
    with pytest.raises(SystemExit): checks.main([])


def test_the_command(tmp_path):
    (tmp_path/"progress.json").write_text('{"matmul_ikj": "passed"}')
    shown = subprocess.run([sys.executable, "-m", "groundup.checks", "--status"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "[x] matmul_ikj" in shown


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_mistake_in_every_exercise_is_diagnosed(lesson, tmp_path):
    exercises = [exercise for exercise in EXERCISES if exercise.name in LESSONS[lesson]]
    wrong = {exercise.name: exercise.mistakes[-1] for exercise in exercises}
    cells = [f"from groundup.checks import check_{name}\ncheck_{name}(check_{name}.mistakes[-1])" for name in wrong]
    result = graded(tmp_path, *cells, name=f"{lesson}.ipynb")
    assert {name: state for name, (state, _) in result.exercises.items()} == dict.fromkeys(wrong, "tried")
    for name, mistake in wrong.items(): assert result.exercises[name][1].endswith(f". {getdoc(mistake)}")
