"""Runs in; tables, pictures and one page out. Nothing here needs a GPU or the corpus, or writes into a run.

``systems`` says what a report is about, ``uncertainty`` and ``paired_tests`` what its numbers are worth; ``figures``
and modules named after their pictures draw. ``sections`` arrange all in a ``document``, and ``render`` makes the
page and its Markdown of it by ``templates``; ``report`` writes both. The package itself imports none of them, so that
the command line can look at it without waiting for pandas, torch or matplotlib.
"""
