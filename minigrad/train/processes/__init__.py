"""Training steps by several processes: `pool` is the parent's side, `handler` the workers', `shared` the memory that all of them use."""
