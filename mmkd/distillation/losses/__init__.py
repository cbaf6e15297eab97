"""Published distillation losses: tensor math that imports only torch, one per file."""

from mmkd.distillation.losses._dense import Assignment as Assignment
from mmkd.distillation.losses._dense import Priors as Priors
from mmkd.distillation.losses._errors import InputError as InputError
from mmkd.distillation.losses.ab import ABLoss
from mmkd.distillation.losses.attention import AttentionLoss
from mmkd.distillation.losses.attention_transfer import AttentionTransferLoss
from mmkd.distillation.losses.bckd import BCKDLoss
from mmkd.distillation.losses.byot import BYOTLoss
from mmkd.distillation.losses.cc import CCLoss
from mmkd.distillation.losses.cosine import CosineLoss
from mmkd.distillation.losses.crd import CRDLoss
from mmkd.distillation.losses.crosskd import CrossKDLoss
from mmkd.distillation.losses.cskd import CSKDLoss
from mmkd.distillation.losses.cwd import CWDLoss
from mmkd.distillation.losses.ddgsd import DDGSDLoss
from mmkd.distillation.losses.dist import DISTLoss
from mmkd.distillation.losses.dkd import DKDLoss
from mmkd.distillation.losses.dml import DMLLoss
from mmkd.distillation.losses.fgd import FGDLoss
from mmkd.distillation.losses.fitnet import FitNetLoss
from mmkd.distillation.losses.fsecd import FSECDLoss
from mmkd.distillation.losses.fsp import FSPLoss
from mmkd.distillation.losses.ft import FTLoss
from mmkd.distillation.losses.heatmap import HeatmapLoss
from mmkd.distillation.losses.kd import KDLoss
from mmkd.distillation.losses.kd_detr import KDDETRLoss
from mmkd.distillation.losses.kdcl import KDCLLoss
from mmkd.distillation.losses.l_mcl import LMCLLoss
from mmkd.distillation.losses.l_mcl_memory import LMCLMemoryLoss
from mmkd.distillation.losses.ld import LDLoss
from mmkd.distillation.losses.mcl import MCLLoss
from mmkd.distillation.losses.mgd import MGDLoss
from mmkd.distillation.losses.nst import NSTLoss
from mmkd.distillation.losses.ofd import OFDLoss
from mmkd.distillation.losses.okddip import OKDDipLoss
from mmkd.distillation.losses.one import ONELoss
from mmkd.distillation.losses.pcl import PCLLoss
from mmkd.distillation.losses.pkd import PKDLoss
from mmkd.distillation.losses.pkt import PKTLoss
from mmkd.distillation.losses.query_prior import QueryPriorLoss
from mmkd.distillation.losses.review_kd import ReviewKDLoss
from mmkd.distillation.losses.rkd import RKDLoss
from mmkd.distillation.losses.sad import SADLoss
from mmkd.distillation.losses.scd import SCDLoss
from mmkd.distillation.losses.score_weighted_l2 import ScoreWeightedL2Loss
from mmkd.distillation.losses.set_kd import SetKDLoss
from mmkd.distillation.losses.similarity_preserving import SimilarityPreservingLoss
from mmkd.distillation.losses.soft_focal import SoftFocalLoss
from mmkd.distillation.losses.target_aware import TargetAwareLoss
from mmkd.distillation.losses.vid import VIDLoss
from mmkd.distillation.losses.weighted_l1 import (
    OffsetLoss,
    PeakOffsetLoss,
    PeakWidthHeightLoss,
    WidthHeightLoss,
)

__all__ = ['ABLoss', 'AttentionLoss', 'AttentionTransferLoss', 'BCKDLoss', 'BYOTLoss', 'CCLoss',
           'CRDLoss', 'CSKDLoss', 'CWDLoss', 'CosineLoss', 'CrossKDLoss', 'DDGSDLoss', 'DISTLoss',
           'DKDLoss', 'DMLLoss', 'FGDLoss', 'FSECDLoss', 'FSPLoss', 'FTLoss', 'FitNetLoss',
           'HeatmapLoss', 'KDCLLoss', 'KDDETRLoss', 'KDLoss', 'LDLoss', 'LMCLLoss',
           'LMCLMemoryLoss', 'MCLLoss', 'MGDLoss', 'NSTLoss', 'OFDLoss', 'OKDDipLoss', 'ONELoss',
           'OffsetLoss', 'PCLLoss', 'PKDLoss', 'PKTLoss', 'PeakOffsetLoss', 'PeakWidthHeightLoss',
           'QueryPriorLoss', 'RKDLoss', 'ReviewKDLoss', 'SADLoss', 'SCDLoss',
           'ScoreWeightedL2Loss', 'SetKDLoss', 'SimilarityPreservingLoss', 'SoftFocalLoss',
           'TargetAwareLoss', 'VIDLoss', 'WidthHeightLoss']
