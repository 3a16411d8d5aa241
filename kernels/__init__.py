"""Operations of linear-attention layers, the same on CPU and GPU.

Each operation is a folder: `naive.py` is the readable reference and the truth of the tests, the other
file is the fast form, `__init__.py` is the one function that picks between them. Nothing here imports
anything of asi_lab, and importing has no side effects.
"""

from asi_lab.kernels.delta_rule import delta_rule
from asi_lab.kernels.dplr_delta_rule import dplr_delta_rule
from asi_lab.kernels.feature_map import feature_map
from asi_lab.kernels.fir_bank import fir_bank
from asi_lab.kernels.gated_delta_rule import gated_delta_rule
from asi_lab.kernels.gated_rms_norm import gated_rms_norm
from asi_lab.kernels.kda import kda
from asi_lab.kernels.linear_attention import linear_attention
from asi_lab.kernels.linear_cross_entropy import linear_cross_entropy
from asi_lab.kernels.norms import l2_norm, rms_norm
from asi_lab.kernels.path_mix import path_mix
from asi_lab.kernels.qkv_convolution import qkv_convolution
from asi_lab.kernels.retention import retention
from asi_lab.kernels.short_convolution import short_convolution, short_convolution_step
from asi_lab.kernels.ssd import ssd

__all__ = [
    "delta_rule",
    "dplr_delta_rule",
    "feature_map",
    "fir_bank",
    "gated_delta_rule",
    "gated_rms_norm",
    "kda",
    "l2_norm",
    "linear_attention",
    "linear_cross_entropy",
    "path_mix",
    "qkv_convolution",
    "retention",
    "rms_norm",
    "short_convolution",
    "short_convolution_step",
    "ssd",
]
