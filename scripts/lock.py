"""Write the lock files in ``requirements/`` from ``pyproject.toml``, with versions and SHA-256 of all files.

One resolution for all platforms and Python versions is divided into disjoint files, so that they can be installed
together without conflicts:

=============== =================================================================
torch.lock      PyTorch from the public index, with the CUDA libraries for Linux
base.lock       other packages that prediction or the build of gliomark needs
extras.lock     additional packages of the users' extras (server, client, ...)
dev.lock        additional packages for tests, linters and releases
=============== =================================================================

``torch-cpu.lock``, an alternative to ``torch.lock``, is maintained by hand. Locked versions are kept as long as
``pyproject.toml`` allows; ``--upgrade`` and ``--upgrade-package NAME`` are passed to uv.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
LOCKS = ("torch", "base", "extras", "dev")
DEVELOPER_EXTRAS = ("dev", "docs", "release")  # all other extras are for users
CUDA_PARTS = ("cuda-", "nvidia-", "triton")
EDITABLE = "editables~=0.3"  # required by hatchling for pip install -e


def read_pyproject() -> dict:
    """Read ``pyproject.toml``."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def read_lock(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Read the requirements of ``requirements/<name>.lock`` and the SHA-256 of their files, by package."""
    return parse_lock((REQUIREMENTS / f"{name}.lock").read_text("utf-8"))


def parse_lock(text: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Parse a lock file's text into requirements and SHA-256 of their files, by package."""
    locked = {}
    for block in split_blocks(text):
        words = block.replace("\\\n", " ")
        requirement = Requirement(words.split("--hash", 1)[0].strip())
        locked[canonicalize_name(requirement.name)] = (requirement, re.findall(r"--hash=sha256:(\w+)", words))
    return locked


def split_blocks(text: str) -> list[str]:
    """Split a lock file into one text per requirement, without comments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return re.findall(r"^\S.*(?:\n\s.*)*", "\n".join(lines), flags=re.MULTILINE)


def resolve_requirements(work: Path, extras: Iterable[str], options: Iterable[str] = ()) -> str:
    """Resolve gliomark with these extras and its build system for all platforms with uv; the text of the lock file.

    ``work/locked.txt`` contains the versions to keep.
    """
    build = work / "build.in"
    build.write_text("\n".join([*read_pyproject()["build-system"]["requires"], EDITABLE]), "utf-8")
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", str(build)),
        *("--universal", "--python-version", "3.11", "--generate-hashes", "--only-binary", ":all:"),
        *("--no-header", "--no-annotate", "--quiet", "--output-file", str(work / "locked.txt")),
        *(word for extra in extras for word in ("--extra", extra)),
        *options,
    ]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return (work / "locked.txt").read_text("utf-8")


def write_locks(options: list[str]) -> None:
    """Write all lock files; options are passed to uv."""
    extras = read_pyproject()["project"]["optional-dependencies"]
    users = [extra for extra in extras if extra not in DEVELOPER_EXTRAS]
    paths = {name: REQUIREMENTS / f"{name}.lock" for name in LOCKS}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        locked_before = "".join(path.read_text("utf-8") for path in paths.values() if path.exists())
        (work / "locked.txt").write_text(locked_before, "utf-8")
        blocks = split_blocks(resolve_requirements(work, extras, options))
        with_extras = set(parse_lock(resolve_requirements(work, users)))
        base = set(parse_lock(resolve_requirements(work, ())))
    texts = dict.fromkeys(LOCKS, "# Written by `make lock` from pyproject.toml: do not edit.\n")
    for block in blocks:
        name = next(iter(parse_lock(block)))
        if name == "torch" or name.startswith(CUDA_PARTS):
            lock = "torch"
        else:
            lock = "base" if name in base else "extras" if name in with_extras else "dev"
        texts[lock] += block + "\n"
    for name, path in paths.items():
        path.write_text(texts[name], "utf-8")


def check_cpu_build() -> str | None:
    """Compare the version in ``torch-cpu.lock`` with ``torch.lock``; a message if they differ, otherwise None."""
    torch_version, cpu_version = (
        next(iter(read_lock(name)["torch"][0].specifier)).version for name in ("torch", "torch-cpu")
    )
    if cpu_version == f"{torch_version}+cpu":
        return None
    return (
        f"requirements/torch-cpu.lock has {cpu_version}, torch.lock {torch_version}; update version and hashes of "
        f"the CPU build"
    )


if __name__ == "__main__":
    write_locks(sys.argv[1:])
    sys.exit(check_cpu_build())
