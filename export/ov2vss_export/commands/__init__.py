"""What ``ov2vss-export`` can be asked to do: one module a mode, each with a ``MODE`` that ``cli.py`` lists."""
