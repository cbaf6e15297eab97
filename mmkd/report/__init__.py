"""One page on one or several trainings: ``report.html``, with nothing to load from elsewhere.

It is made by a command and not at the end of a training: it evaluates the student once more and
asks every teacher, which takes a minute here and many where teachers are heavy, while somebody
waits for the next run. A training ends with the command.
"""
