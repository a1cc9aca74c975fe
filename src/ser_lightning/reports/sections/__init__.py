"""The sections of a report: each file makes some of them from the systems that the report is about."""
