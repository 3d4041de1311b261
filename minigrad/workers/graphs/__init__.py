"""Inference by CUDA graphs: `captured` captures and replays a function of tokens on batches that `buckets` pads to one of a few sizes, once
`ids` has checked that all ids are in range. Captured training steps (`train/captured`) use `buckets` and `ids`, too."""
