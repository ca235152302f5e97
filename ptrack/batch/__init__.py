"""Many videos: every one a job, beside whose outputs a small status file states what became of it.

``jobs`` makes the list, ``status`` and ``places`` keep the state of each job, one ``driver`` loop gives jobs to an
executor (``executors``: this process; ``local``: worker processes; ``ray_actors``: other machines), and ``worker`` is
what happens on the other side. ``tracking`` is what is done with a video. The driver needs no torch.
"""
