"""Report finished runs as tables, figures and a page, without a GPU, the corpus or changes to a run.

``systems`` collects the runs, ``uncertainty`` and ``paired_tests`` compute statistics, ``figures``, ``curves`` and
``*_figure(s)`` draw. ``sections`` build a ``document``, which is rendered as HTML and Markdown by ``templates``, and
``report`` writes both. The package imports no module, so that the command line starts fast.
"""
