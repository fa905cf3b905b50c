"""What all commands share: exit codes."""

OK, CHECK_FAILED, USAGE, CASES_FAILED, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 4, 130
