"""Adaptors to other programs that fit Gaussian mixtures; each runs in a process of its own.

``python -m benchmarks.peers.NAME`` serves the protocol of ``harness`` on standard input and output.
An adaptor imports its own program, NumPy and ``harness``, so that it runs in an environment where
dgmm is not installed; ``dgmm_itself`` is the one that imports dgmm.
"""
