"""The data path: from a client's request to a healthy replica and back."""
