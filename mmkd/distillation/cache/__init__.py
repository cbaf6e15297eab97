"""What teachers say of fixed views of the training data, computed once and read ever after.

A run whose config has the line ``teacher_cache = dict(folder=..., views=K)``::

    options      the line itself; gives the training data fixed views
    views        the data set and the sampler of fixed views
    prepare      before training: open each teacher's store, check that it is of this run, and
    build          let the teachers see what is missing, beside other processes that do the same
    store        a teacher's folder: shards, and made_from.json, which says what they depend on
    identity       that description, and how two of them differ
    shards         one file of it
    codecs       how a tap is stored
    outputs      entries on their way to the device
    cached_teacher  gives the taps of a batch as a teacher that runs would
"""
