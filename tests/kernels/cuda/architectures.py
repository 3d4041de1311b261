"""The architectures that the tests compile kernels for."""

ARCHITECTURES = (60, 70, 75, 80, 86, 89, 90, 100, 120)
"""From Pascal (P100) over Volta (V100), Turing (T4), Ampere, Ada (L4) and Hopper to Blackwell (B200, RTX 50)."""
