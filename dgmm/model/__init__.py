"""What a mixture is: covariance models, mixtures, and the statistics that determine them.

Values only: NumPy arrays and functions of them.  Nothing here reads rows or knows where they lie.
"""
