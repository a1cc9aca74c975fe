"""Predictions files in; tables, figures and one HTML page out. Nothing here needs a GPU or the corpus.

The package itself imports nothing, so that the command line can look at it without waiting for pandas or matplotlib:
``predictions`` reads and writes a fold's product, ``runs`` finds runs on disk, ``summary`` makes numbers of them,
``figures`` pictures, and ``html`` the page.
"""
