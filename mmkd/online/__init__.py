"""The online wing: cohorts of classifiers that teach each other."""

from mmkd.online.branches import CohortGate, ONEBranches, PeerAttention, PeerEnsemble
from mmkd.online.checkpoints import MemberCheckpointHook
from mmkd.online.cohort import Cohort
from mmkd.online.heads import ContrastiveHeads, LayerwiseHeads
from mmkd.online.mean_members import MeanMembersHook
from mmkd.online.meta import MetaOptimizeHook
from mmkd.online.metric import CohortAccuracy

__all__ = ['Cohort', 'CohortAccuracy', 'CohortGate', 'ContrastiveHeads', 'LayerwiseHeads',
           'MeanMembersHook', 'MemberCheckpointHook', 'MetaOptimizeHook', 'ONEBranches',
           'PeerAttention', 'PeerEnsemble']
