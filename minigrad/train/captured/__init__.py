"""Training steps as CUDA graphs: `recorded_step` says what is in one, `recordings` keeps them, `feeding` writes what is new in a step,
`steps` replays, `ahead` does so before the last results are there, and `standing` takes back what was launched in vain."""
