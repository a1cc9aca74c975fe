"""Encoders: frames [B, T, F] of utterances with lengths [B] to descriptors [B, T', D] with lengths of their own."""

from ser_lightning.nn.encoders.convolution import ConvolutionBlock, ConvolutionStack
from ser_lightning.nn.encoders.encoder import Encoder
from ser_lightning.nn.encoders.recurrent import BidirectionalLSTM
from ser_lightning.nn.encoders.se_resnet import ThinSEResNet34

__all__ = ["BidirectionalLSTM", "ConvolutionBlock", "ConvolutionStack", "Encoder", "ThinSEResNet34"]
