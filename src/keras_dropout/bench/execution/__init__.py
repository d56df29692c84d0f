"""Missing runs are given to workers, and what they tell goes into the ledger."""
