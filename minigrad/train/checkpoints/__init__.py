"""Checkpoints: `store` manages a directory of them, which one process writes at a time (`lock`). `contents` reads and writes one, whose
files a `manifest` lists; `trees` splits state into JSON and arrays, `saved` takes it from a trainer, `disk` wraps the system calls."""
