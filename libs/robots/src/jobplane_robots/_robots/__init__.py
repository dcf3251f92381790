"""One module for each robot; a robot has the name of its module."""
