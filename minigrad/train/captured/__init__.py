"""Training steps as CUDA graphs: `recorded_step` is what a graph computes, `recordings` the cache of graphs, `feeding` writes a step's
inputs, `steps` replays graphs, `ahead` launches steps before earlier results have arrived, and `host_state` rolls back skipped updates."""
