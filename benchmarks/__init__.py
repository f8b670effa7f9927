"""How fast the steps are: beside the published recipe in PyTorch, and to the limit.

`python -m benchmarks` is the command. PyTorch is optional and imported by
`peer` and `peer_models` only.
"""
