"""One robot a module; a robot is found under its module's own name."""
