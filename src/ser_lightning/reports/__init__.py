"""Runs in; tables, pictures and one page out. Nothing here needs a GPU or the corpus, or writes into a run.

``systems`` is the content of a report, ``uncertainty`` and ``paired_tests`` are its statistics, ``figures`` and modules
named after what they draw its pictures. ``sections`` arrange all in a ``document``; ``render`` and ``templates`` make
HTML and Markdown of it, and ``report`` writes both. This package imports none of them: the command line stays fast.
"""
