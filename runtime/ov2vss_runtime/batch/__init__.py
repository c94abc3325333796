"""A video archive on many processes and machines, with the very labels of one (the program ``ov2vss-batch``).

A frame depends on the ``n * gap`` frames before it, on the first and on the last one, and on nothing else: a video can
be cut into chunks that are each warmed by so many frames, and their labels are those of one run, bit for bit. ``plan``
writes the jobs, ``work`` does them in any order and place, ``merge`` joins what came out.
"""
