"""Write the report: plain values in, one HTML file out. Computes no statistic."""
