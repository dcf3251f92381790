"""`jobplane check`: check the repository against its own rules."""

import inspect
import json
import sys

import click

from jobplane.tree.members import install_dependencies
from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane check                     every rule, on everything
  jobplane check connect status      what concerns two functions
  jobplane check --rule permissions  one rule
  jobplane check --rules             the rules, a line each

To allow a finding, add it to the member's pyproject.toml, by rule and subject, with
a reason. An entry that matches no finding is a finding itself.

\b
  [tool.jobplane.check.permissions]
  "s3:ListBucket" = "With it, S3 says 404 of a missing object instead of 403."
"""
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--rule", "chosen", multiple=True, metavar="RULE", help="Only this rule; repeatable.")
@click.option("--rules", "listed", is_flag=True, help="List the rules and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a JSON list.")
def command(names: tuple[str, ...], chosen: tuple[str, ...], listed: bool, as_json: bool) -> None:
    """Check functions, or everything, against the rules.

    Prints a line per finding: path:line: rule: what is wrong, what to do. Exits with 1 if there
    is a finding. Builds first, because some rules read the artifacts.
    """
    from jobplane import rules

    known = rules.rule_names()
    if listed:
        for name in known:
            summary = (inspect.getdoc(rules.rule(name)) or "").partition("\n\n")[0]
            click.echo(f"{name:12} {' '.join(summary.split())}")
        return
    for name in chosen:
        if name not in known:
            raise click.UsageError(f"unknown rule {name!r}; known are: {', '.join(known)}")
    repository = Repository.here()
    install_dependencies(repository)
    tree = rules.Tree(repository, names)
    findings = rules.check(tree, list(dict.fromkeys(chosen)) or known)
    if as_json:
        click.echo(json.dumps([finding.as_json(tree) for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(finding.as_line(tree))
        if not findings:
            what = ", ".join(function.name for function in tree.functions) if names else "all"
            click.echo(f"{what}: nothing found by {', '.join(chosen or known)}")
    if findings:
        sys.exit(1)
