"""Jobs in the tools where people look already: TensorBoard and MLflow, live or by ``epochd export``.

It reads the database like anybody else and writes nothing there but its own positions (``store.mirrors``): whatever a
target does, the training never notices. ``targets`` says what a target is, ``tensorboard`` and ``mlflow`` are two;
``reading`` is what they are sent, ``rewinding`` whether that is true still; ``follower`` keeps one target up to date,
and ``process`` is the process that does so for ``serve``.

``epochd export`` sends one job once: ``export`` does it, ``files`` writes CSV and Parquet, ``screen`` shows it. That is
the command's, not the mirror's: it runs in the caller's process, and shares only targets and reading.
"""
