"""The faces in Python: scikit-learn's estimator, the search over sizes, public statistics."""
