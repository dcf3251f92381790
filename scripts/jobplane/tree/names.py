"""Names of a stage's resources. All begin with the service's name in serverless.yml.

scripts/serverless/members.js and stage.js have the same rules in JavaScript.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    service: str
    stage: str

    @property
    def stack(self) -> str:
        return f"{self.service}-{self.stage}"

    @property
    def prefix(self) -> str:
        """The prefix of names of functions, tables, queues, alarms and local buckets."""
        return f"{self.stack}-"

    def of(self, name: str) -> str:
        return self.prefix + name

    def short(self, name: str) -> str:
        """A full name without the prefix: `connections`, `files`."""
        return name.removeprefix(self.prefix)

    def parameter(self, name: str) -> str:
        return f"/{self.service}/{self.stage}/{name}"

    @property
    def metrics(self) -> str:
        """The namespace of the metrics that functions emit; every stage has the same one."""
        return "".join(word.capitalize() for word in re.split(r"[^A-Za-z0-9]+", self.service))
