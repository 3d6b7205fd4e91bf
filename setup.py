"Installs `groundup`; everything said here comes from settings.ini."
import sys
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here/"settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
if sys.version_info < tuple(map(int, cfg["min_python"].split("."))): # pip itself asks only after it has downloaded torch
    sys.exit(f"Python {sys.version.split()[0]} is too old: {cfg['lib_name']} needs {cfg['min_python']} or later.")
extras = {name: cfg[f"{name}_requirements"].split() for name in ["plots", "digits"]}

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here/"README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    keywords=cfg["keywords"].split(),
    author=cfg["author"],
    author_email=cfg["author_email"],
    license=cfg["license"],
    license_files=["LICENSE"],
    url=cfg["git_url"],
    project_urls={"Source": cfg["git_url"], "Colab": f"{cfg['colab_url']}/index.ipynb", "Binder": cfg["binder_url"],
                  "Codespaces": cfg["codespaces_url"]},
    classifiers=[
        f"Development Status :: {cfg['status']}",
        *(f"Intended Audience :: {audience}" for audience in cfg["audience"].split()),
        f"Natural Language :: {cfg['language']}",
        f"Programming Language :: Python :: {cfg['min_python']}",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[cfg["lib_name"], f"{cfg['lib_name']}.*"]),
    install_requires=cfg["requirements"].split(),
    extras_require={**extras, "dev": sum(extras.values(), cfg["dev_requirements"].split()), "teach": cfg.get("teach_requirements", "").split()},
)
