"""Many studies: find them, work through them, lose nothing, answer what was done.

    plan       a folder tree or a list -> the jobs, and why the rest is none
    jobs       one job: a study and a task, its input files and their fingerprints
    ledger     the append-only record of what happened to every job
    claims     locks that keep two runs from doing one job twice
    perform    one job in a worker process: claim, do, record
    supervisor one worker process: time limit, memory limit, cause of death
    executors  several workers on this machine
    cluster    the same on Dask distributed
    gpu        one process that owns the GPU, fed by the workers
    run        the whole batch
    answer     summary.csv and index.html

Nothing here imports torch before a worker has been started.
"""
