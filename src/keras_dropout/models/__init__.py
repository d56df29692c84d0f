"""Reading and changing a model: its calls, its sites, dropout added or removed, and known mistakes."""
