"""Runs in; tables, pictures and one page out. Nothing here needs a GPU or the corpus, or writes into a run.

``systems`` is the content of a report, ``uncertainty`` and ``paired_tests`` its statistics, ``figures`` and the modules
named after what they draw its pictures. ``sections`` arrange all in a ``document``; ``render`` and ``templates`` turn it
into HTML and Markdown, and ``report`` writes both. This package imports none of them: the command line stays fast.
"""
