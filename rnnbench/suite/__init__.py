"""What is run: cases, the suites that list them, and their inputs."""
