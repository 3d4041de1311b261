"""Checkpoints: `store` keeps a directory of them, which one process writes at a time (`lock`). One of them is `contents` with a `manifest`,
its state JSON and arrays (`trees`), which `saved` makes of a trainer; `disk` makes every change, one system call each."""
