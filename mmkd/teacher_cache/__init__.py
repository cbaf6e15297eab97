"""What teachers say of fixed views of the training data, computed once and read ever after.

A run whose config has the line ``teacher_cache = dict(folder=..., views=K)``::

    options      the line itself; gives the training data fixed views
    views        the data set and the sampler of fixed views
    store        a teacher's folder: shards, and made_from.json, which says what they depend on
    identity       that description, and how two of them differ
    shards         one file of it
    codecs       how a tap is stored
    claims       which of several processes computes what
    outputs      entries on their way to the device

Nothing here knows a teacher. The heart does: its ``cache_plan`` opens each teacher's store before a
training and checks that it is of this run, ``cache_build`` lets the teachers see what is missing,
and ``cached_teacher`` gives the taps of a batch as a teacher that runs would.
"""

from mmkd.teacher_cache.options import fix_views
from mmkd.teacher_cache.views import FixedViews, ViewSampler

__all__ = ['FixedViews', 'ViewSampler', 'fix_views']
