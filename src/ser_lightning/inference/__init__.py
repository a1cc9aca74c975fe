"""Use a trained checkpoint: classify recordings, export to ONNX, draw attention."""
