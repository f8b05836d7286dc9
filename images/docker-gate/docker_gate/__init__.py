"""The Docker gate: the only holder of the Docker socket, a filter in front of it."""
