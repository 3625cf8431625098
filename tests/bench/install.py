"""What the peers need: which packages, which versions are there, and how to get them."""

import os
import re
import shutil
import subprocess
import sys
import tomllib

from commands import DEBIAN_PACKAGES, NPM_PACKAGES
from start import ROOT, daemon


def requirements() -> list[str]:
    """Return the extra `[bench]` of this checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["optional-dependencies"].get("bench", [])


def packages() -> list[str]:
    return [re.match(r"[\w.-]+", requirement)[0] for requirement in requirements()]


def webserver_versions() -> dict[str, str]:
    found = {}
    for names, word in (
        (("nginx",), "-v"),
        (("apache2", "httpd"), "-v"),
        (("lighttpd",), "-v"),
        (("caddy",), "version"),
        *(((name,), "--version") for name in NPM_PACKAGES),
    ):
        program = daemon(*names)
        said = _said_of_itself(program, word) if program else ""
        version = re.search(r"\d+\.[\d.]+", said)
        found[names[0]] = version[0] if version else "missing"
    return found


def _said_of_itself(program: str, word: str) -> str:
    done = subprocess.run([program, word], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def install() -> None:
    """Get what is missing; what cannot be had is told by pip or apt, and missing in the tables."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "-qq", "-y", "--no-install-recommends", "install", *DEBIAN_PACKAGES]
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "-qq", "update"], check=False)
        subprocess.run(command, env=quiet, stdin=subprocess.DEVNULL, check=False)
    if shutil.which("npm"):
        subprocess.run(["npm", "install", "-g", *NPM_PACKAGES], check=False)
    for requirement in requirements():  # one by one: what does not build holds up nothing else
        subprocess.run([sys.executable, "-m", "pip", "-q", "install", requirement], check=False)
