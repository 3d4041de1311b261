"""Code shared by the benchmarks: the timed work, the contenders and their processes, memory, the floor, machine and tables."""
