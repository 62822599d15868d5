"""Every version that constraints.txt pins for the oldest Python runs there, beside the others."""

from __future__ import annotations

from importlib.metadata import distributions
from pathlib import Path

from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
OLDEST: dict[str, str] = {"python_version": "3.10", "python_full_version": "3.10.13"}


def pins(environment: dict[str, str]) -> dict[str, str]:
    """The version of each package for an environment."""
    lines = [line.partition("#")[0].strip() for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines()]
    found: dict[str, str] = {}
    for requirement in (Requirement(line) for line in lines if line):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} is pinned twice"
            (specifier,) = requirement.specifier
            found[name] = specifier.version
    return found


def test_what_is_installed_and_pinned_for_python_3_10_runs_on_it() -> None:
    """Of the releases of this environment that are pinned there too, each takes that Python and the others' pins."""
    environment = {**_here(), **OLDEST}
    pinned = pins(environment)
    checked, faults = 0, []
    for distribution in distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        if pinned.get(name) != distribution.version.partition("+")[0]:
            continue
        checked += 1
        needed = [Requirement(f"python{distribution.metadata.json.get('requires_python', '')}")]
        needed += [
            each for each in map(Requirement, distribution.requires or ())
            if each.marker is None or each.marker.evaluate({**environment, "extra": ""})
        ]
        versions = {**pinned, "python": OLDEST["python_full_version"]}
        faults += [
            f"{name} {distribution.version} needs {each}" for each in needed
            if (version := versions.get(canonicalize_name(each.name))) is not None
            and not each.specifier.contains(version, prereleases=True)
        ]
    assert checked > 20
    assert not faults


def _here() -> dict[str, str]:
    environment: Environment = default_environment()
    return {name: str(value) for name, value in environment.items()}
