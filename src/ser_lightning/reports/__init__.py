"""Predictions files in; tables, figures and one page out. Nothing here needs a GPU or the corpus.

``predictions`` reads and writes a fold's product, ``runs`` finds runs on disk, ``summary`` makes numbers of them,
``uncertainty`` and ``paired_tests`` say what these are worth, files that end in ``figure`` make pictures, ``sections``
arranges all, and ``report`` writes the page. The package itself imports none of them, so that the command line can look
at it without waiting for pandas, torch or matplotlib.
"""
