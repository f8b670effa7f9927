"""Benchmarks of the steps against PyTorch and the hardware's peak.

`python -m benchmarks` is the command. PyTorch is optional; only `peer` and
`peer_models` import it.
"""
