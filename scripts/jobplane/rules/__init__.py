"""The repo's own rules: one public module each, found by its file's name.

A rule's module has a docstring whose first line states the rule, and `findings(tree)`.
"""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from jobplane.rules._tree import Finding, Findings, Tree

__all__ = ["Finding", "Rule", "Tree", "check", "rule", "rule_names"]


class Rule(Protocol):
    __doc__: str

    def findings(self, tree: Tree) -> Findings: ...


def rule_names() -> list[str]:
    modules = Path(__file__).parent.glob("[a-z]*.py")
    return sorted(path.stem.replace("_", "-") for path in modules)


def rule(name: str) -> Rule:
    return cast("Rule", import_module(f"jobplane.rules.{name.replace('-', '_')}"))


def check(tree: Tree, names: list[str]) -> list[Finding]:
    """The findings of the rules without allowed ones, and entries that allow nothing.

    Ordered by file and line. If files can't be read, only these are reported.
    """
    if unreadable := list(tree.unreadable()):
        return unreadable
    found = {name: list(rule(name).findings(tree)) for name in names}
    left: list[Finding] = []
    for member in tree.members:
        left += member.excuses.unusable(member, found, rule_names())
    for name, findings in found.items():
        left += [
            replace(finding, rule=name)
            for finding in findings
            if finding.member is None or not finding.member.excuses.cover(name, finding)
        ]
    return sorted(set(left), key=lambda finding: (finding.place(tree), finding.message))
