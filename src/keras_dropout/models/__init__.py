"""A model read and changed: its calls, its sites, dropout put in and taken out, and known mistakes."""
