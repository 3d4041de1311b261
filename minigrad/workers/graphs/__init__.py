"""Functions of tokens as CUDA graphs: `captured` records and replays them, on batches that `buckets` fills up to one of few sizes, when
`ids` has seen that the model has a row for each. Captured steps of training (`train/captured`) rest on the same two."""
