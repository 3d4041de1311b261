"""Training steps by several processes: `together` is what this process knows of its workers, `desk` what each of them does, `shared` the
memory in which all of them work."""
