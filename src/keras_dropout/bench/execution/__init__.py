"""Give missing runs to workers and write their results to the ledger."""
