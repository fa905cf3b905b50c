"""Cases, suites of cases, and their inputs."""
