"""The files for publishing (workflows, container images, templates, source distribution) are valid and agree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from tests.docs.documents import ROOT, read_pyproject

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read_yaml(path: Path) -> dict:
    # YAML 1.1 reads the key `on` as true
    return {
        "on" if key is True else key: value for key, value in yaml.safe_load(path.read_text("utf-8")).items()
    }


# ---- workflows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_valid_and_has_few_permissions(path: Path) -> None:
    workflow = read_yaml(path)
    assert workflow["name"] and workflow["on"] and workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 120, name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w./-]+@[\w./-]+", step["uses"]), step
            if "actions/checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


def test_versions_of_python_are_those_of_the_package() -> None:
    project = read_pyproject()["project"]
    stated = {one.rsplit(" ", 1)[1] for one in project["classifiers"] if re.search(r"Python :: 3\.\d+$", one)}
    matrix = read_yaml(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert set(matrix["python"]) == stated
    lowest, highest = re.findall(r"3\.(\d+)", project["requires-python"])
    assert stated == {f"3.{minor}" for minor in range(int(lowest), int(highest))}
    assert {re.match(r"[a-z]+", system).group() for system in matrix["system"]} == {
        "ubuntu",
        "windows",
        "macos",
    }


def test_releases_use_trusted_publishing() -> None:
    path = ROOT / ".github" / "workflows" / "release.yml"
    release = read_yaml(path)
    assert release["on"]["push"]["tags"] == ["v*"]
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in path.read_text("utf-8")


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form_is_valid(path: Path) -> None:
    form = read_yaml(path)
    if path.name == "config.yml":
        assert form["blank_issues_enabled"] is False and form["contact_links"]
        return
    assert form["name"] and form["description"]
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert ids and len(ids) == len(set(ids))


def test_pre_commit_is_valid() -> None:
    configuration = read_yaml(ROOT / ".pre-commit-config.yaml")
    assert all(repository["hooks"] for repository in configuration["repos"])
    (ruff,) = [one["rev"] for one in configuration["repos"] if one["repo"].endswith("/ruff-pre-commit")]
    assert f"\nruff=={ruff.removeprefix('v')} " in (ROOT / "requirements" / "dev.lock").read_text("utf-8")


# ---- container images -------------------------------------------------------------------------------


def read_instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their arguments."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1]) for line in lines]


def test_the_image_does_not_run_as_root_and_has_a_health_check() -> None:
    instructions = read_instructions()
    known = {
        "ARG",
        "COPY",
        "ENTRYPOINT",
        "CMD",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "RUN",
        "USER",
    }
    known |= {"VOLUME", "WORKDIR", "SHELL"}
    names = [name for name, _ in instructions]
    assert set(names) <= known and names[0] in ("ARG", "FROM")
    users = [argument for name, argument in instructions if name == "USER"]
    assert users and users[-1] not in ("root", "0")
    assert names.index("USER") < names.index("ENTRYPOINT")
    (health,) = [argument for name, argument in instructions if name == "HEALTHCHECK"]
    assert "check_health.py" in health
    assert "/api/health" in (ROOT / "scripts" / "check_health.py").read_text("utf-8")
    assert all(
        ":latest" not in argument and ":" in argument.split()[0]
        for name, argument in instructions
        if name == "FROM"
    )


def test_the_image_has_the_locked_version_of_pytorch() -> None:
    (version,) = re.findall(r"^ARG TORCH=(\S+)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert re.search(
        rf"^torch=={re.escape(version)}\b", (ROOT / "requirements" / "torch.lock").read_text("utf-8"), re.M
    )


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    result = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_apptainer_definition_has_its_sections() -> None:
    text = (ROOT / "apptainer.def").read_text("utf-8")
    assert re.match(r"(#.*\n)*Bootstrap: docker\nFrom: python:3\.\d+", text)
    sections = set(re.findall(r"^%(\w+)", text, re.MULTILINE))
    assert {"files", "post", "environment", "runscript", "test", "labels", "help"} <= sections


@pytest.mark.parametrize("name", ["Dockerfile", "apptainer.def"])
def test_an_image_copies_files_that_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    if name == "Dockerfile":
        copies = [arg.split() for kind, arg in read_instructions() if kind == "COPY" and "--from" not in arg]
        sources = [word for arguments in copies for word in arguments[:-1] if not word.startswith("--")]
    else:
        section = text.split("%files\n")[1].split("\n%")[0]
        sources = [line.split()[0] for line in section.splitlines() if line.strip()]
    assert sources and all((ROOT / source).exists() for source in sources)


# ---- source distribution ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_source_distribution_contains_every_file_of_the_repository(tmp_path: Path) -> None:
    """Its own tests can then be run from it."""
    pytest.importorskip("hatchling")
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    tracked = {name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()}
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        packed = {name.split("/", 1)[1] for name in opened.getnames() if "/" in name}
    assert tracked <= packed


def test_paths_of_the_source_distribution_exist() -> None:
    included = read_pyproject()["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert not [name for name in included if not (ROOT / name.lstrip("/")).exists()]
