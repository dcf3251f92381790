# /// script
# requires-python = "==3.13.*"
# dependencies = ["checkov==3.3.30"]
# ///
"""Holds a compiled template against checkov's policies: `security_lint.py TEMPLATE` prints JSON.

A script with an environment and a lock of its own, since checkov pins versions of what the
workspace uses as well. After a change of the dependency: `uv lock --script` with this file.
"""

import sys

from checkov.main import Checkov

OPTIONS = ["--framework", "cloudformation", "--skip-download", "--compact", "--soft-fail"]

if __name__ == "__main__":
    sys.exit(Checkov([*OPTIONS, "--output", "json", "--file", sys.argv[1]]).run())
