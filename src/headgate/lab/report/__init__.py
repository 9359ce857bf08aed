"""The report of a lab run: one self-contained HTML page, and tables for the terminal."""
