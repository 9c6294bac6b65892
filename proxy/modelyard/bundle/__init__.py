"""Bundles for closed networks: one directory with everything that a fleet needs, and a manifest that says so.

``manifest`` is the file's form, ``paths`` what a path in it may be, ``verify`` the check of a directory against it,
``collect`` the making of one out of ``parts`` (images, weights, wheels, collections, packages, the project itself).
"""
