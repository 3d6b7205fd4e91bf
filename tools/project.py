"What the tools and tests share: where things are, what settings.ini says, and how a file is replaced."
import os, shutil
from configparser import ConfigParser
from contextlib import suppress
from pathlib import Path

top = Path(__file__).resolve().parent.parent
config = ConfigParser(delimiters=["="])
config.read(top/"settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]


def notebooks() -> list[Path]:
    "The lessons and the appendix in order, then the exercises and the index."
    return [*sorted((top/"nbs").glob("*.ipynb")), *sorted((top/"nbs").glob("*/[!.]*.ipynb")), top/"index.ipynb"]


def write(path: Path, data: bytes):
    "Makes `data` the content of the file at `path`, whole or not at all."
    if path.is_file() and path.read_bytes() == data: return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_bytes(data)
        if path.is_file(): shutil.copymode(path, new)
        os.replace(new, path)
    except OSError: # no space left, for one
        with suppress(OSError): new.unlink()
        raise


def replace(path: Path, found: bytes, data: bytes) -> bool:
    "Does so only if the file at `path` still holds what was `found` there, and says whether it does."
    unchanged = path.read_bytes() == found
    if unchanged: write(path, data)
    return unchanged
