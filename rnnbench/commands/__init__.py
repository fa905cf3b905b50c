"""The commands whose work fills a module of its own; ``cli`` knows their options."""
