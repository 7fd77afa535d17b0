"""The papers in miniature. Imported by their commands alone."""
