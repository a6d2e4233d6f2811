"""Write ``build/sbom.cdx.json``, the software bill of materials of a user's installation in CycloneDX format.

``cyclonedx-py`` lists the environment. Packages for developers only are removed; the others get the licences of
``docs/reference/licences.md`` and the SHA-256 of their files from the lock files. The output is reproducible
byte for byte.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.licences import USER_LOCKS, find_licence, find_user_packages, read_rules
from scripts.lock import ROOT, read_lock

SBOM = ROOT / "build" / "sbom.cdx.json"


def list_environment() -> dict[str, Any]:
    """List all installed packages as a CycloneDX document."""
    command = [
        *(sys.executable, "-m", "cyclonedx_py", "environment", sys.executable),
        *("--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--no-validate"),
    ]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    document: dict[str, Any] = json.loads(listed.stdout)
    return document


def read_locked_hashes() -> dict[str, list[str]]:
    """Read the SHA-256 of the files from which each package may be installed."""
    hashes = {name: found for lock in USER_LOCKS for name, (_, found) in read_lock(lock).items()}
    hashes["torch"] = hashes["torch"] + read_lock("torch-cpu")["torch"][1]
    return hashes


def build_sbom() -> dict[str, Any]:
    """Build the document, ready to be written as JSON."""
    packages, hashes, rules = find_user_packages(), read_locked_hashes(), read_rules()
    document = list_environment()
    kept = {}
    for component in document["components"]:
        name = canonicalize_name(component["name"])
        if name not in packages:
            continue
        licence = {"expression": find_licence(packages[name], rules), "acknowledgement": "concluded"}
        files = {
            "type": "distribution",
            "url": component.get("purl", f"pkg:pypi/{name}@{component['version']}"),
            "comment": "SHA-256 of the files that the lock files in requirements/ allow",
            "hashes": [{"alg": "SHA-256", "content": digest} for digest in hashes[name]],
        }
        component |= {"licenses": [licence], "externalReferences": [files]}
        kept[component["bom-ref"]] = component
    root = document["metadata"]["component"]["bom-ref"]
    for tool in document["metadata"]["tools"]["components"]:
        tool.pop("externalReferences", None)  # only links to web pages
    document["components"] = list(kept.values())
    document["dependencies"] = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", []) if ref in kept]}
        for entry in document["dependencies"]
        if entry["ref"] in kept or entry["ref"] == root
    ]
    return document


def find_violations(text: str) -> list[str]:
    """List violations of the CycloneDX schema; needs no network."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    version = SchemaVersion.from_version(json.loads(text)["specVersion"])
    errors = JsonStrictValidator(version).validate_str(text, all_errors=True)
    return [str(error) for error in errors or ()]


if __name__ == "__main__":
    text = json.dumps(build_sbom(), indent=2, sort_keys=True) + "\n"
    if violations := find_violations(text):
        sys.exit("\n".join(violations))
    SBOM.parent.mkdir(exist_ok=True)
    SBOM.write_text(text, "utf-8")
    print(f"{SBOM}: {len(json.loads(text)['components'])} packages")
