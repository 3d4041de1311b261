"""Training steps by several processes: `together` is the parent's side, `desk` the workers', `shared` the memory that all of them use."""
