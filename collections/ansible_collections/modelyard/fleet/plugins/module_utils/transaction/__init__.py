"""Several packages installed, replaced and removed by a package manager in one transaction.

``text`` understands what the managers print and is pure; ``apt`` and ``dnf`` ask and act through a function that runs a
command.
"""
