"""The papers' experiments at small scale. Imported only by their commands."""
