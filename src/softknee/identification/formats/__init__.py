"""One reader per file format; each gives a Census."""
