"""The lock files contain every dependency of pyproject.toml once, with hashes, and nothing specific to one machine."""

from __future__ import annotations

import re
from collections import Counter
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scripts.lock import (
    CUDA_PARTS,
    DEVELOPER_EXTRAS,
    LOCKS,
    REQUIREMENTS,
    check_cpu_build,
    parse_lock,
    read_lock,
    read_pyproject,
)

PROJECT = read_pyproject()
EXTRAS = PROJECT["project"]["optional-dependencies"]
# lock files installed together, as in the Makefile
UNINSTALLED = {"rfc3987-syntax"}  # by the Makefile, after the installation
INSTALLED = {"base": ("torch", "base"), "users": ("torch", "base", "extras"), "developers": LOCKS}


def read_pinned_versions(locks: tuple[str, ...]) -> dict[str, str]:
    """Read the version of every package in these lock files."""
    return {
        name: next(iter(requirement.specifier)).version
        for lock in locks
        for name, (requirement, _) in read_lock(lock).items()
    }


def list_direct_dependencies() -> list[tuple[str, str]]:
    """List the direct dependencies of pyproject.toml and its build system, each with the group that installs it."""
    requirements = {
        "base": PROJECT["project"]["dependencies"],
        "build": PROJECT["build-system"]["requires"],
    } | EXTRAS
    group_by_extra = {"base": "base", "build": "base"} | {
        extra: "developers" if extra in DEVELOPER_EXTRAS else "users" for extra in EXTRAS
    }
    return [
        (group_by_extra[extra], requirement) for extra, group in requirements.items() for requirement in group
    ]


@pytest.mark.parametrize("group, dependency", list_direct_dependencies())
def test_the_lock_satisfies_pyproject(group: str, dependency: str) -> None:
    requirement = Requirement(dependency)
    if requirement.name == "gliomark":  # an extra that includes other extras, which are tested separately
        assert requirement.extras <= set(EXTRAS)
        return
    version = read_pinned_versions(INSTALLED[group])[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=True), f"{dependency}: the lock has {version}"


@pytest.mark.parametrize("lock", [*LOCKS, "torch-cpu"])
def test_every_requirement_is_one_version_with_hashes(lock: str) -> None:
    locked = read_lock(lock)
    assert locked
    for name, (requirement, hashes) in locked.items():
        operators = [(one.operator, "*" in one.version) for one in requirement.specifier]
        assert operators == [("==", False)], f"{name} is not pinned to one version"
        assert hashes and all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in hashes), name
        assert requirement.url is None, f"{name} contains a URL"


def test_a_package_is_in_one_lock_file() -> None:
    """Lock files that are installed together cannot conflict."""
    counted = Counter(name for lock in LOCKS for name in read_lock(lock))
    assert [name for name, times in counted.items() if times > 1] == []


def test_every_dependency_of_a_locked_package_is_locked() -> None:
    """According to the metadata of this environment, the lock files contain all dependencies of their packages."""
    known: set[str] = set()
    for lock in LOCKS:
        locked = read_lock(lock)
        known |= set(locked) | {"torch"}
        for name, (requirement, _) in locked.items():
            if lock == "torch" or name in UNINSTALLED:
                continue
            if requirement.marker and not requirement.marker.evaluate():
                continue
            for dependency in map(Requirement, distribution(name).requires or []):
                if dependency.marker is None or dependency.marker.evaluate({"extra": ""}):
                    assert canonicalize_name(dependency.name) in known, (
                        f"{name} in {lock}.lock needs {dependency}"
                    )


def test_cuda_is_locked_only_with_torch() -> None:
    """The lock file of the CPU build can replace torch.lock completely."""
    assert check_cpu_build() is None
    for lock in ("base", "extras", "dev"):
        names = set(read_lock(lock))
        assert "torch" not in names and not [name for name in names if name.startswith(CUDA_PARTS)]


@pytest.mark.parametrize("lock", [*LOCKS, "torch-cpu"])
def test_a_lock_file_contains_no_addresses(lock: str) -> None:
    """The package index is configured in pip, not in a lock file."""
    text = (REQUIREMENTS / f"{lock}.lock").read_text("utf-8")
    assert not re.search(r"://|--(extra-)?index|--find-links|file:|(?<!\w)/\w+/", text)


def test_a_lock_file_is_parsed_like_pip_does() -> None:
    first = "a.b==1.0 ; sys_platform == 'linux' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
    locked = parse_lock(f"# heading\n{first}c==2\n")
    assert {name: hashes for name, (_, hashes) in locked.items()} == {"a-b": ["aa", "bb"], "c": []}
    assert str(locked["a-b"][0]) == 'a.b==1.0; sys_platform == "linux"'
