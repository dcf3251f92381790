"""What `aws` makes of commands, in its own environment: a JSON list of argument lists comes in, a
list of faults goes out. Nothing is carried out, for nothing listens at the endpoint; a command that
got as far as to ask there was understood.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

from awscli.clidriver import CLIDriver, create_clidriver  # type: ignore[import-not-found]

NOWHERE = "http://127.0.0.1:1"
UNDERSTOOD = "Could not connect to the endpoint URL"
# What earlier commands of the document have written.
FILE = "file://"
# A value is a variable of the shell here, so its length does not count.
SETTINGS = "[default]\nparameter_validation = false\n"


def fault(driver: CLIDriver, arguments: list[str]) -> str | None:
    """What is wrong with a command; None if it was understood."""
    for name in (word.removeprefix(FILE) for word in arguments if word.startswith(FILE)):
        Path(name).write_text("{}", encoding="utf-8")
    said = io.StringIO()
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        driver.main([*arguments, "--endpoint-url", NOWHERE])
    text = said.getvalue().strip()
    return None if UNDERSTOOD in text else text[-300:] or "it did something"


with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    settings = Path("settings.ini")
    settings.write_text(SETTINGS, encoding="utf-8")
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "unknown",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_CONFIG_FILE": str(settings),
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    commands = json.load(sys.stdin)
    aws = create_clidriver()
    json.dump([fault(aws, arguments) for arguments in commands], sys.stdout)
