"""The SQLite file that holds runs: its tables, what is put into it and read from it, and its upkeep."""
