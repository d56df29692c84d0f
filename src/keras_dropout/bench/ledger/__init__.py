"""The SQLite file that stores runs: its tables, writing, reading and maintenance."""
