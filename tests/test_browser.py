"A learner in JupyterLab, in a real browser: an exercise is answered wrongly, the diagnosis read, the answer mended, and passed."
import os, shutil, socket, subprocess, sys, time, urllib.request

import pytest
from project import top

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")]
SWITCHES = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split()
WRONG = """def matmul_ikj(a, b):
    out = [[0] * len(b[0]) for _ in a]
    for i in range(len(a)):
        for k in range(len(b)):
            for j in range(len(b[0])): out[i][j] = a[i][k] * b[k][j]
    return out"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    "Where JupyterLab serves a new learner's copies."
    folder = tmp_path_factory.mktemp("course")
    for name in ["tools", "workbook"]: shutil.copytree(top/name, folder/name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(top/"settings.ini", folder/"settings.ini")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "tools/lab.py", "--no-browser", "--port", str(port), "--IdentityProvider.token=", "--expose-app-in-browser"]
    home = tmp_path_factory.mktemp("home") # no settings of whoever runs the tests
    server = subprocess.Popen(command, cwd=folder, env={**os.environ, "HOME": str(home), "IPYTHONDIR": str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try: urllib.request.urlopen(f"http://localhost:{port}/api")
            except OSError: time.sleep(0.2)
            else: break
        yield f"http://localhost:{port}", folder/"my"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def page(address):
    "The first lesson, opened, with a kernel that waits."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(60_000)
        page.asked_for = []
        page.on("request", lambda request: page.asked_for.append(request.url))
        page.goto(f"{address[0]}/lab/tree/my/01_matmul.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function("jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'")
        yield page
        browser.close()


FIND = """words => jupyterapp.shell.currentWidget.content.widgets.findIndex(cell => cell.model.sharedModel.getSource().startsWith(words))"""


def run_cell(page, beginning, text=None):
    "Runs the cell that begins so, typed anew if there is a `text`; returns what it printed, as the page shows it."
    number = page.evaluate(FIND, beginning)
    assert number >= 0, beginning
    page.evaluate("""async number => {
        const notebook = jupyterapp.shell.currentWidget.content
        notebook.activeCellIndex = number
        await notebook.scrollToItem(number, 'center')
        notebook.activate() }""", number)
    cell = page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{number}"]')
    cell.scroll_into_view_if_needed()
    if text:
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        page.keyboard.insert_text(text)
    before = page.evaluate("number => jupyterapp.shell.currentWidget.content.widgets[number].model.executionCount", number)
    page.keyboard.press("Control+Enter")
    page.wait_for_function("""([number, before]) => {
        const count = jupyterapp.shell.currentWidget.content.widgets[number].model.executionCount
        return count && count != before }""", arg=[number, before])
    page.wait_for_function("jupyterapp.shell.currentWidget.sessionContext.session.kernel.status == 'idle'")
    return cell.locator(".jp-OutputArea").first.inner_text()


def test_it_opens_without_a_question_and_asks_nobody(page, address):
    page.wait_for_timeout(3000)
    assert page.locator(".jp-Dialog").count() == 0 and page.locator(".Toastify__toast").all_inner_texts() == []
    assert [url for url in page.asked_for if not url.startswith((address[0], "ws://localhost", "data:", "blob:"))] == []
    assert not page.evaluate("jupyterapp.shell.currentWidget.context.model.dirty"), "the lesson counts as changed as soon as it is opened"


def test_a_mistake_is_recognised_and_mended(page, address):
    run_cell(page, "import math")
    assert "matmul_ikj is still to be written" in run_cell(page, "def matmul_ikj") + run_cell(page, "check_matmul_ikj")
    run_cell(page, "def matmul_ikj", WRONG)
    said = run_cell(page, "check_matmul_ikj")
    assert "It overwrites out[i][j]" in said.replace("`", "") and "expected" in said and "CheckFailed: matmul_ikj: case" in said
    assert "Traceback" not in said
    run_cell(page, "def matmul_ikj", WRONG.replace("[j] = a", "[j] += a"))
    assert "matmul_ikj: all 5 cases are right." in run_cell(page, "check_matmul_ikj")
    assert '"matmul_ikj": "passed"' in (address[1]/"progress.json").read_text()
    assert "[x] matmul_ikj" in run_cell(page, "import math", "import math\nfrom groundup.checks import status\nstatus()")
