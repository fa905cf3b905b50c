"""Commands of the command line, one module each; ``rnnbench.cli`` wires them."""
