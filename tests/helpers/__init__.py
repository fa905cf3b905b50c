"""What several files of tests share: made-up runs and machines, backends with faults, and what carries them out."""
