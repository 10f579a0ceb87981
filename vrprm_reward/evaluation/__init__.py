"""How well a process reward judges, measured on labelled benchmarks."""
