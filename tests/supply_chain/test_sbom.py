"""The bill of materials is valid CycloneDX and names every package that users install."""

from __future__ import annotations

import json
from typing import Any

import pytest
from packaging.utils import canonicalize_name
from scripts.licences import find_licence, find_user_packages, read_rules
from scripts.lock import read_lock
from scripts.sbom import build_sbom, find_violations


@pytest.fixture(scope="module")
def sbom() -> dict[str, Any]:
    return build_sbom()


def test_the_bill_of_materials_follows_the_schema(sbom) -> None:
    """Validated with a fifth of the packages, because all of them would take a minute."""
    part = sbom | {"components": sbom["components"][::5], "dependencies": []}
    assert find_violations(json.dumps(part)) == []
    assert find_violations(json.dumps(part | {"bomFormat": "SPDX"})), "the validator accepts anything"


def test_it_lists_every_user_package_with_licence_and_hashes(sbom) -> None:
    components = {canonicalize_name(one["name"]): one for one in sbom["components"]}
    packages, rules = find_user_packages(), read_rules()
    assert set(components) == set(packages)
    for name, package in packages.items():
        assert components[name]["version"] == package.version
        assert components[name]["licenses"][0]["expression"] == find_licence(package, rules)
        assert components[name]["externalReferences"][0]["hashes"]
    base = read_lock("base")["numpy"][1]
    assert [one["content"] for one in components["numpy"]["externalReferences"][0]["hashes"]] == base


def test_the_bill_of_materials_is_reproducible(sbom) -> None:
    assert "timestamp" not in sbom["metadata"] and "serialNumber" not in sbom
    known = {one["bom-ref"] for one in sbom["components"]}
    assert {ref for entry in sbom["dependencies"] for ref in entry["dependsOn"]} <= known
