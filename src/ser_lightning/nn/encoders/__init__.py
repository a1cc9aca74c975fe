"""Encoders: frames [B, T, F] with lengths [B] to descriptors [B, T', D] with lengths [B]."""

from ser_lightning.nn.encoders.layers import BidirectionalLSTM, ConvolutionBlock, ConvolutionStack, Encoder
from ser_lightning.nn.encoders.se_resnet import ThinSEResNet34

__all__ = ["BidirectionalLSTM", "ConvolutionBlock", "ConvolutionStack", "Encoder", "ThinSEResNet34"]
