"""Training steps as CUDA graphs: `step_graph` is what a graph computes, `graph_cache` the cache of graphs, `inputs` writes a step's
inputs, `steps` replays graphs, `ahead` launches steps before earlier results have arrived, and `host_state` rolls back skipped updates."""
