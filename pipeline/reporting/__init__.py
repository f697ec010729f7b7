"""What people and machines read at the end of a run: records to text, no decisions.

`pipeline.reporting.files.write_all` writes all four files; `pipeline.reporting.console` is for the terminal and
imports no plotly.
"""
