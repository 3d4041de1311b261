"""What the benchmarks share: the work that is timed, the contenders and their processes, memory, the floor, machine and tables."""
