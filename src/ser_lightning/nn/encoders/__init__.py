"""Encoders: frames [B, T, F] of utterances with lengths [B] to descriptors [B, T', D] with lengths of their own."""

from ser_lightning.nn.encoders.layers import BidirectionalLSTM, ConvolutionBlock, ConvolutionStack, Encoder
from ser_lightning.nn.encoders.se_resnet import ThinSEResNet34

__all__ = ["BidirectionalLSTM", "ConvolutionBlock", "ConvolutionStack", "Encoder", "ThinSEResNet34"]
